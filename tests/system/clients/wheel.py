"""Makes the wheel demo-1.0.0 in a directory: a server whose one tool says what became of fetching again.

wheel.py DIRECTORY
"""

import pathlib
import sys
import zipfile

MODULE = '''
import json, sys, urllib.request

def again():
    try:
        return f"status {urllib.request.urlopen('https://packages.lab.example/simple/demo/', timeout=20).status}"
    except OSError as error:
        return type(getattr(error, "reason", error)).__name__

def main():
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            about = {"name": "demo", "version": "1.0.0"}
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        else:
            result = {"content": [{"type": "text", "text": json.dumps(again())}]}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
'''
INFO = "demo-1.0.0.dist-info"
files = {
    "demo.py": MODULE,
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\ndemo = demo:main\n",
}
record = f"{INFO}/RECORD"
files[record] = "".join(f"{name},,\n" for name in [*files, record])
with zipfile.ZipFile(pathlib.Path(sys.argv[1]) / "demo-1.0.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
