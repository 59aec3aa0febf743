"""The REST API with many datasets. The reference is the same bytes as a file from memory, over a TLS connection of the same kind
(same certificates, both sides show theirs, kept alive), from a server that does nothing else: what is left is work of ours."""
import http.client
import http.server
import multiprocessing
import socket
import ssl
import time
import uuid

from figures import Figure, median, spread
from group_docker import interleaved
from hosts import bench_hosts, progress

DATASETS = 10000
FILL_LIMIT_S = 60
ROUNDS = 30
PATH = "/v1/configuration/datasets"


def measure(folder, binary, add):
    with bench_hosts(folder, binary, "rest") as (host,):
        certificates = host.path("/etc/flocker")
        port = free_port()
        host.up("--backend=memory", rest=f"127.0.0.1:{port}")
        took = host.call("fill_datasets", count=DATASETS, primary=str(uuid.UUID(int=7, version=4)), limit_s=FILL_LIMIT_S)
        progress(f"({DATASETS} datasets in {took:.0f} s)")
        ours = connect(certificates, port)
        body = fetch(ours)[1]
        server, other_port = static_server(certificates, body)
        try:
            theirs = connect(certificates, other_port)
            assert fetch(theirs)[1] == body
            times = interleaved(ROUNDS, lambda i: fetch(ours)[0], lambda i: fetch(theirs)[0])
        finally:
            server.terminate()
            server.join()
        add(Figure("rest.list_ms.10000", median(times[0]), "ms", median(times[1]),
                   note=f"{len(body) / 1e6:.1f} MB; {spread(times[0])}; reference: static, over the same TLS"))


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def connect(certificates, port):
    context = ssl.create_default_context(cafile=certificates / "cluster.crt")
    context.load_cert_chain(certificates / "user.crt", certificates / "user.key")
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


def static_server(certificates, body):
    """A process that serves the body; (process, port)."""
    ready, child_ready = multiprocessing.Pipe(False)
    process = multiprocessing.Process(target=serve, args=(certificates, body, child_ready), daemon=True)
    process.start()
    return process, ready.recv()


def serve(certificates, body, ready):
    class Static(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # pylint: disable=invalid-name
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_):  # pylint: disable=arguments-differ
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "cluster.crt")
    context.load_cert_chain(certificates / "control-service.crt", certificates / "control-service.key")
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.HTTPServer(("127.0.0.1", 0), Static)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    ready.send(server.server_port)
    server.serve_forever()
