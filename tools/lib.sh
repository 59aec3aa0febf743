# What tools/up, tools/down and tools/self-check share; sourced by them.
# shellcheck shell=bash disable=SC2034

readonly CONTROL_SOCKET=/run/flocker/control.sock
readonly AGENT_SOCKET=/run/flocker/agent.sock
readonly PLUGIN_SOCKET=/run/docker/plugins/flocker/flocker.sock
readonly UNITS=(flocker-plugin.socket flocker-control.service flocker-agent.service)
readonly DOCKERD_PID=/run/flocker/dockerd.pid # only of one that tools/up started itself
readonly DOCKERD_LOG=/var/log/flocker/dockerd.log
readonly CHECKED=/run/flocker/self-check-passed
readonly PODMAN_CONFIG=/etc/containers/containers.conf.d/flocker.conf

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "it mounts file systems and starts services: run it as root (with sudo)"
}

has() {
    command -v "$1" >/dev/null 2>&1
}

has_systemd() {
    [ -d /run/systemd/system ] && has systemctl
}

has_units() {
    has_systemd && systemctl cat "${UNITS[@]}" >/dev/null 2>&1
}

# Waits up to $1 seconds until the command after it succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# Prints the answer of Flocker to METHOD PATH on one of its sockets; fails if the status isn't 200 or nobody answers.
ask() {
    python3 - "$@" 2>/dev/null <<'END'
import http.client, socket, sys
path, method, target = sys.argv[1:4]
connection = http.client.HTTPConnection("flocker", timeout=60)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.settimeout(60)
connection.sock.connect(path)
connection.request(method, target)
reply = connection.getresponse()
print(reply.read().decode())
sys.exit(0 if reply.status == 200 else 1)
END
}

member() { # of the JSON object on standard input; nothing if there is none
    python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1" 2>/dev/null || true
}

# A host that has joined the cluster of another one has a node's certificate, and no control service.
has_control() {
    [ ! -e /etc/flocker/node.crt ] || [ -e /etc/flocker/control-service.crt ]
}

flocker_answers() {
    [ -S $AGENT_SOCKET ] && [ -S $PLUGIN_SOCKET ] && ask $AGENT_SOCKET GET /v2/pool >/dev/null || return 1
    ! has_control || { [ -S $CONTROL_SOCKET ] && ask $CONTROL_SOCKET GET /v2/status >/dev/null; }
}

docker_answers() {
    timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}
