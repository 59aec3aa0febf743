"""A network of test hosts: a bridge in a network namespace of its own; each host has one link to it, which can be cut."""
import subprocess

SETUP = "ip link add hosts type bridge && ip link set hosts up && echo ready $$ && exec cat"


class Network:
    def __init__(self):
        self.process = subprocess.Popen(["unshare", "--net", "--kill-child", "--fork", "sh", "-c", SETUP], text=True,
                                        start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer = self.process.stdout.readline().split()
        if answer[:1] != ["ready"]:
            raise RuntimeError("the network did not start")
        self.holder = int(answer[1])
        self.numbers = {}  # by host name: a host keeps its addresses when it is started again

    def connect(self, host):
        """Gives a host that has just started its link and its address 10.77.0.N; called by Host."""
        number = self.numbers.setdefault(host.name, len(self.numbers) + 1)
        self._ip("link", "add", f"host{number}", "type", "veth", "peer", "name", "eth0", "address",
                 f"02:00:00:00:00:{number:02x}", "netns", str(host.holder))
        host.run(["ip", "address", "add", f"{self.address(host)}/24", "dev", "eth0"])
        host.run(["ip", "link", "set", "eth0", "up"])
        self._ip("link", "set", f"host{number}", "master", "hosts", "up")

    def disconnect(self, host):
        """Takes the link away; called by Host when it ends (the kernel would do so too, but later)."""
        subprocess.run(self._command("link", "delete", f"host{self.numbers[host.name]}"), check=False, stderr=subprocess.DEVNULL)

    def address(self, host):
        return f"10.77.0.{self.numbers[host.name]}"

    def cut(self, host):
        self._ip("link", "set", f"host{self.numbers[host.name]}", "down")

    def mend(self, host):
        self._ip("link", "set", f"host{self.numbers[host.name]}", "up")

    # What a host loses is lost in its own firewall: the kernel here has no netem. A power cut of the host ends it, too.

    def cut_one_way(self, host, direction):
        """Nothing comes in ("in") or nothing goes out ("out"): the host is deaf or mute."""
        self._drop(host, direction)

    def lose(self, host, share):
        """That share of the packets is lost, in each direction."""
        for direction in ("in", "out"):
            self._drop(host, direction, "-m", "statistic", "--mode", "random", "--probability", str(share))

    def deliver(self, host):
        """Nothing is lost any more."""
        host.run(["iptables", "--wait", "--flush"])

    @staticmethod
    def _drop(host, direction, *match):
        chain, option = {"in": ("INPUT", "-i"), "out": ("OUTPUT", "-o")}[direction]
        host.run(["iptables", "--wait", "-A", chain, option, "eth0", *match, "-j", "DROP"])

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)

    def _ip(self, *args):
        subprocess.run(self._command(*args), check=True)

    def _command(self, *args):
        return ["nsenter", "--target", str(self.holder), "--net", "ip", *args]
