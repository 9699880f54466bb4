"""Makes an image for linux/amd64 from this machine's Python and one script, as a registry has it.

image.py DIRECTORY NAME TAG SCRIPT: writes the files into DIRECTORY, and prints them as JSON: for each path below the
registry its media type and file, and the digests of the index and of the configuration.
"""
import glob
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile

DIRECTORY, NAME, TAG, SCRIPT = sys.argv[1:]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PYTHON = os.path.realpath("/usr/bin/python3")
LIBRARY = os.path.dirname(os.__file__)
LEFT_OUT = {"__pycache__", "test", "idlelib", "ensurepip", "lib2to3", "distutils", "pydoc_data", "dist-packages"}
found = {}


def keep(path, kind, content):
    file = os.path.join(DIRECTORY, hashlib.sha256(path.encode()).hexdigest()[:16])
    with open(file, "wb") as out:
        out.write(content)
    found[path] = [kind, file]


def blob(kind, content):
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    keep(f"/v2/{NAME}/blobs/{digest}", "application/octet-stream", content)
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def parents(path):
    while path := os.path.dirname(path):
        yield path


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        folders = {folder for inside in files for folder in parents(inside)}
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            made.addfile(info)
        for inside, outside in sorted(files.items()):
            # What a name leads to, not where it leads.
            info = made.gettarinfo(os.path.realpath(outside), inside)
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            with open(outside, "rb") as content:
                made.addfile(info, content)
    return out.getvalue()


def runtime():
    files = {"usr/bin/python3": PYTHON}
    for folder, folders, names in os.walk(LIBRARY):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                files[path[1:]] = path
    for program in [PYTHON, *glob.glob(f"{LIBRARY}/lib-dynload/*.so")]:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for path in re.findall(r"(/\S+) \(0x", listed):
            files[path[1:]] = path
    return archive(files)


layers, diffs = [], []
for content, packed in [(runtime(), True), (archive({"server.py": SCRIPT}), False)]:
    diffs.append("sha256:" + hashlib.sha256(content).hexdigest())
    kind = "application/vnd.oci.image.layer.v1.tar"
    if packed:
        content, kind = gzip.compress(content, 1, mtime=0), kind + "+gzip"
    layers.append(blob(kind, content))
# The user that most images have: root.
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
config["config"] = {"Entrypoint": ["/usr/bin/python3", "-I", "/server.py"], "Env": ["PATH=/usr/bin"]}
config = blob(CONFIG, json.dumps(config).encode())
manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
manifest = json.dumps(manifest).encode()
ours = {"mediaType": MANIFEST, "digest": "sha256:" + hashlib.sha256(manifest).hexdigest(), "size": len(manifest)}
keep(f"/v2/{NAME}/manifests/{ours['digest']}", MANIFEST, manifest)
other = dict(ours, digest="sha256:" + "0" * 64, platform={"architecture": "arm64", "os": "linux"})
ours["platform"] = {"architecture": "amd64", "os": "linux"}
index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, ours]}).encode()
digest = "sha256:" + hashlib.sha256(index).hexdigest()
for reference in [TAG, digest]:
    keep(f"/v2/{NAME}/manifests/{reference}", INDEX, index)
print(json.dumps({"files": found, "digest": digest, "config": config["digest"]}))
