"""Runs in a test host: a list by REST, and the same bytes as a file from memory over a TLS connection of the same kind (same certificates,
both sides show theirs, kept alive) from a server that does nothing else."""
import http.client
import http.server
import multiprocessing
import ssl
import time

PATH = "/v1/configuration/datasets"
PORT = 4523
CERTIFICATES = "/etc/flocker"


def compare(rounds):
    """The milliseconds of each request to Flocker and to the static server, in turn, and the size of an answer."""
    ours = connect(PORT)
    body = fetch(ours)[1]
    server, port = static_server(body)
    try:
        theirs = connect(port)
        assert fetch(theirs)[1] == body
        times = [], []
        for i in range(rounds):
            for which in (0, 1) if i % 2 else (1, 0):
                times[which].append(fetch((ours, theirs)[which])[0])
    finally:
        server.terminate()
        server.join()
    return {"ours": times[0], "theirs": times[1], "bytes": len(body)}


def connect(port):
    context = ssl.create_default_context(cafile=f"{CERTIFICATES}/cluster.crt")
    context.load_cert_chain(f"{CERTIFICATES}/user.crt", f"{CERTIFICATES}/user.key")
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    connection.connect()
    return connection


def fetch(connection):
    begin = time.perf_counter_ns()
    connection.request("GET", PATH)
    reply = connection.getresponse()
    body = reply.read()
    took = (time.perf_counter_ns() - begin) / 1e6
    assert reply.status == 200, reply.status
    return took, body


def static_server(body):
    """A process that serves the body; (process, port)."""
    ready, child_ready = multiprocessing.Pipe(False)
    process = multiprocessing.Process(target=serve, args=(body, child_ready), daemon=True)
    process.start()
    return process, ready.recv()


def serve(body, ready):
    class Static(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # pylint: disable=invalid-name
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_):  # pylint: disable=arguments-differ
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{CERTIFICATES}/cluster.crt")
    context.load_cert_chain(f"{CERTIFICATES}/control-service.crt", f"{CERTIFICATES}/control-service.key")
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.HTTPServer(("127.0.0.1", 0), Static)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    ready.send(server.server_port)
    server.serve_forever()
