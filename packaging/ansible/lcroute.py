# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs Ansible's tasks on nodes of a Librecast network, by `lcroute connect`. No sshd, no address, no open port."""

from __future__ import annotations

DOCUMENTATION = """
    name: lcroute
    short_description: Run tasks over streams between nodes (lcroute connect)
    description:
        - >-
          Each node serves a shell to those who may use it,
          C(lcroute serve /ansible/1 --allow label:role=admin -- sh -c 'IFS= read -r line && eval "$line"').
        - Tasks run as the user of that command.
    author: Librecast
    options:
        host:
            description: Name, PeerId or address of the node, or book:NAME.
            default: inventory_hostname
            vars:
                - name: inventory_hostname
                - name: ansible_host
        protocol:
            description: What the node serves the shell as.
            default: /ansible/1
            vars:
                - name: ansible_lcroute_protocol
        executable:
            description: The program, with arguments of its own.
            default: lcroute
            vars:
                - name: ansible_lcroute_executable
"""

import base64
import shlex
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase

# Runs a command in a folder of its own: a stream carries one output. The first line of the answer says how long
# what follows is, so that what broke off is told from what ended.
RUN = """
d=$(mktemp -d) || exit
trap 'rm -rf "$d"' EXIT
head -c {length} >"$d/in"
[ $(wc -c <"$d/in") -eq {length} ] || exit
sh -c {command} <"$d/in" >"$d/out" 2>"$d/err"; code=$?
echo $code $(wc -c <"$d/out") $(wc -c <"$d/err")
cat "$d/out" "$d/err"
"""


class Connection(ConnectionBase):
    """Each command, and each file, is a stream of its own."""

    transport = "lcroute"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(cmd, in_data or b"")

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        try:
            with open(in_path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise AnsibleFileNotFound(f"{in_path}: {error}") from error
        self._checked("cat >" + shlex.quote(out_path), content)

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        content = self._checked("cat <" + shlex.quote(in_path), b"")
        with open(out_path, "wb") as file:
            file.write(content)

    def close(self):
        self._connected = False

    def _checked(self, command, data):
        code, out, err = self._run(command, data)
        if code:
            raise AnsibleError(err.decode(errors="replace").strip() or f"exit code {code}")
        return out

    def _run(self, command, data):
        """Exit code and both outputs of a command on the node."""
        script = RUN.format(length=len(data), command=shlex.quote(command)).encode()
        # the node's shell reads one line, and what is behind it is the command's
        line = b'eval "$(echo %s | base64 -d)"\n' % base64.b64encode(script)
        node, protocol = self.get_option("host"), self.get_option("protocol")
        connect = [*shlex.split(self.get_option("executable")), "connect", node, protocol]
        try:
            done = subprocess.run(connect, input=line + data, capture_output=True, check=False)
        except OSError as error:
            raise AnsibleConnectionFailure(f"{connect[0]}: {error}") from error
        head, _, rest = done.stdout.partition(b"\n")
        try:
            code, out, err = map(int, head.split())
        except ValueError:
            code, out, err = 0, 0, -1
        if done.returncode or len(rest) != out + err:
            why = done.stderr.decode(errors="replace").strip()
            raise AnsibleConnectionFailure(why or f"{node}: the stream broke off")
        return code, rest[:out], rest[out:]
