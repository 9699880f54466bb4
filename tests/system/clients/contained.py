"""An MCP server in a container: fetches what it is told to, says what it is, and tries to get out."""
import ctypes
import errno
import json
import os
import socket
import ssl
import sys
import urllib.request

libc = ctypes.CDLL(None, use_errno=True)


def called(number, *arguments):
    """What the kernel says to a system call."""
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return "done" if done >= 0 else errno.errorcode[ctypes.get_errno()]


def tried(work):
    try:
        return str(work() or "done")
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def connect(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(5)
        made.connect(address)


def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"out", address)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return {"status": answer.status, "text": answer.read().decode("latin-1")[:300]}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "text": error.read().decode("latin-1")[:300]}
    except (OSError, ssl.SSLError) as error:
        return {"error": type(error).__name__, "text": str(error)}


def tell(_):
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    names = ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"]
    with open("/proc/self/cgroup") as file:
        cgroup = file.read()
    said = {name: status[name].strip() for name in names}
    return dict(said, cgroup=cgroup, arguments=sys.argv[1:], token=os.environ.get("TOKEN"))


def attack(address):
    new = {"user": 0x10000000, "net": 0x40000000, "mount": 0x20000, "cgroup": 0x2000000}
    said = {f"unshare {name}": called(272, flag) for name, flag in new.items()}
    said |= {f"clone {name}": called(56, flag | 17, 0, 0, 0, 0) for name, flag in new.items()}
    said["clone3"] = called(435, 0, 0)
    said["setns"] = tried(lambda: called(308, os.open("/proc/self/ns/net", os.O_RDONLY), 0))
    said["io_uring"] = called(425, 1, 0)
    said["ptrace"] = called(101, 0, 0, 0, 0)
    said["bpf"] = called(321, 0, 0, 0)
    said["mount"] = called(165, 0, 0, 0, 0, 0)
    said["keyctl"] = called(250, 0, 0)
    said["packet"] = called(41, 17, 3, 0)
    said["vsock"] = called(41, 40, 1, 0)
    said["alg"] = called(41, 38, 5, 0)
    said["netfilter"] = called(41, 16, 3, 12)
    # As much as the kernel reads of it is a family that is allowed.
    said["wide"] = called(41, (1 << 32) | 2, 1, 0)
    said["raw"] = called(41, 2, 3, 1)
    said["setuid"] = tried(lambda: os.setuid(0))
    said["cgroup"] = tried(lambda: write("/sys/fs/cgroup/cgroup.procs", "0"))
    said["sysctl"] = tried(lambda: write("/proc/sys/net/ipv4/ip_forward", "1"))
    said["docker"] = tried(lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "/var/run/docker.sock"))
    said["address"] = tried(lambda: connect(socket.AF_INET, socket.SOCK_STREAM, (address, 443)))
    said["datagram"] = tried(lambda: send((address, 9)))
    said["trust"] = tried(lambda: write(os.environ["SSL_CERT_FILE"], "x"))
    return said


TOOLS = {"get": get, "tell": tell, "attack": attack}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "contained", "version": "1.0.0"}}
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
    else:
        params = message["params"]
        said = TOOLS[params["name"]](params["arguments"].get("of"))
        result = {"content": [{"type": "text", "text": json.dumps(said)}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
