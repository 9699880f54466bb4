"""A client with a certificate, or none: posts each line that it reads to https://HOST/mcp, all on its first connection, and
prints what came of it. The line `resume` dials anew with the first connection's session. Arguments: HOST TRUST
CERTIFICATE VERSION; CERTIFICATE is the path of a `.pem` and a `.key` without these, or empty."""

import http.client
import json
import socket
import ssl
import sys

host, trust, certificate, version = sys.argv[1:5]
context = ssl.create_default_context(cafile=trust)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
if certificate:
    context.load_cert_chain(certificate + ".pem", certificate + ".key")
headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
connection = http.client.HTTPSConnection(host, context=context, timeout=30)


def post(line):
    connection.request("POST", "/mcp", line, headers)
    # From here on a connection that ended is an error.
    connection.auto_open = 0
    answer = connection.getresponse()
    return {"status": answer.status, "body": answer.read().decode()}


def resume():
    session = connection.sock.session
    with socket.create_connection((host, 443), timeout=30) as stream:
        with context.wrap_socket(stream, server_hostname=host, session=session) as again:
            return {"reused": again.session_reused, "ticket": session.has_ticket}


for line in sys.stdin:
    try:
        told = resume() if line.strip() == "resume" else post(line.strip())
    except (OSError, http.client.HTTPException) as error:
        told = {"error": type(error).__name__}
    print(json.dumps(told), flush=True)
