"""A host that a test moves: starts what each line says, with pipes, speaks one line to it and tells what it answers."""
import json, os, socket, subprocess, sys, time

kept = {}


def speak(process, line):
    try:
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass
    return process.stdout.readline().decode().strip()


def start(order):
    more, environment = {}, dict(os.environ)
    if "executable" in order:
        more["executable"] = order["executable"]
    if "hand" in order:
        # A connection that the child inherits, open and in use.
        connection = socket.create_connection((order["hand"], 80), 20)
        os.set_inheritable(connection.fileno(), True)
        environment["HANDED"] = str(connection.fileno())
        more["pass_fds"] = [connection.fileno()]
    pipe = subprocess.PIPE
    return subprocess.Popen(order["start"], stdin=pipe, stdout=pipe, env=environment, **more)


def storm(count):
    """Starts so many short processes at once, all with the same pipes, and waits for each."""
    (reader, _), (_, writer) = os.pipe(), os.pipe()
    began = time.monotonic()
    all = [subprocess.Popen(["/bin/true"], stdin=reader, stdout=writer) for _ in range(count)]
    return all, began


for line in sys.stdin:
    order = json.loads(line)
    if "storm" in order:
        all, began = storm(order["storm"])
        print(json.dumps("started"), flush=True)
        ended = [process.wait() for process in all]
        print(json.dumps({"ended": ended.count(0), "took": time.monotonic() - began}), flush=True)
        continue
    if "sequence" in order:
        began = time.monotonic()
        for _ in range(order["sequence"]):
            subprocess.run(["/bin/true"], input=b"", stdout=subprocess.PIPE, check=True)
        print(json.dumps(time.monotonic() - began), flush=True)
        continue
    if "again" in order:
        print(json.dumps(speak(kept[order["again"]], order["say"])), flush=True)
        continue
    began = time.monotonic()
    process = start(order)
    said = speak(process, order["say"])
    took, status = time.monotonic() - began, None
    if order.get("keep"):
        kept[process.pid] = process
    else:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdout.read()
        status = process.wait()
    told = {"pid": process.pid, "said": said, "status": status, "took": took}
    print(json.dumps(told), flush=True)
