"""Sends bytes as they are: raw.py OPTIONS (JSON), or a list of them, one connection each.

host, port; tls (default true), sni (default host; "" for none), alpn, version ("1.2" or "1.3");
send: texts (latin-1), one write each, {"make": path}, which makes a file, or {"exists": path}, which waits for one;
split: write in pieces of so many bytes; pause: seconds between writes; LARGE in texts stands for so many letters as
`large` says; until: stop reading at this text, else at the end. Prints {"got": text, "alpn", "version", "peer": the
certificate's issuer, "error"}.
"""

import json
import os
import socket
import ssl
import sys
import time


def one(given):
    out = {"got": "", "error": None, "alpn": None, "version": None}
    began = time.monotonic()
    try:
        plain = socket.create_connection((given["host"], given["port"]), 20)
        plain.settimeout(20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = plain
        if given.get("tls", True):
            context = ssl.create_default_context()
            context.check_hostname = False
            if given.get("insecure"):
                context.verify_mode = ssl.CERT_NONE
            if "alpn" in given:
                context.set_alpn_protocols(given["alpn"])
            if "version" in given:
                chosen = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[given["version"]]
                context.minimum_version = context.maximum_version = chosen
            sni = given.get("sni", given["host"]) or None
            if "split" in given:
                # The handshake goes through memory, so that the pieces are ours to choose.
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = context.wrap_bio(incoming, outgoing, server_hostname=sni)

                def flush():
                    data = outgoing.read()
                    for at in range(0, len(data), given["split"]):
                        plain.sendall(data[at : at + given["split"]])
                        time.sleep(given.get("pause", 0))

                def until(work):
                    while True:
                        try:
                            result = work()
                            flush()
                            return result
                        except ssl.SSLWantReadError:
                            flush()
                            data = plain.recv(65536)
                            if data:
                                incoming.write(data)
                            else:
                                incoming.write_eof()

                until(tls.do_handshake)

                class Stream:
                    def sendall(self, data):
                        tls.write(data)
                        flush()

                    def recv(self, size):
                        return until(lambda: tls.read(size))

                stream, shown = Stream(), tls
            else:
                stream = shown = context.wrap_socket(plain, server_hostname=sni)
            out["alpn"], out["version"] = shown.selected_alpn_protocol(), shown.version()
            if not given.get("insecure"):
                issuer = shown.getpeercert()["issuer"]
                out["issuer"] = dict(pair for part in issuer for pair in part).get("commonName")
        try:
            for text in given.get("send", []):
                if isinstance(text, dict):
                    if "make" in text:
                        open(text["make"], "w").close()
                    while "exists" in text and not os.path.exists(text["exists"]):
                        time.sleep(0.01)
                    continue
                text = text.replace("LARGE", "x" * given.get("large", 0))
                stream.sendall(text.encode("latin-1"))
                time.sleep(given.get("pause", 0))
        except OSError as error:
            # The other side has closed; what it said before may still be read.
            out["unsent"] = f"{type(error).__name__}: {error}"
        got = b""
        wanted = given.get("until", "").encode("latin-1")
        while not (wanted and wanted in got):
            data = stream.recv(65536)
            if not data:
                break
            got += data
            out["got"] = got.decode("latin-1")
    except Exception as error:
        out["error"] = f"{type(error).__name__}: {error}"
    out["seconds"] = time.monotonic() - began
    return out


given = json.loads(sys.argv[1])
print(json.dumps([one(each) for each in given] if isinstance(given, list) else one(given)))
