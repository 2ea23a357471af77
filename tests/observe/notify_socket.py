"""The receiving end of sd_notify(3), as systemd has it, for systemd_test.ts.

Prints the sender's process id and the assignments of each message as a line of JSON, and answers
barriers by closing the descriptor that came with them. Ends when its standard input does.
"""

import array
import json
import select
import socket
import struct
import sys

address = sys.argv[1]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind("\0" + address[1:] if address.startswith("@") else address)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print(json.dumps("listening"), flush=True)

while True:
    ready, _, _ = select.select([receiver, sys.stdin], [], [])
    if sys.stdin in ready:
        break
    data, ancillary, _, _ = receiver.recvmsg(65536, socket.CMSG_SPACE(1024))
    pid = None
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("3i", payload[:12])[0]
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for descriptor in array.array("i", payload[: len(payload) // 4 * 4]):
                socket.close(descriptor)
    lines = data.decode().splitlines()
    if lines != ["BARRIER=1"]:
        print(json.dumps({"pid": pid, "lines": lines}), flush=True)
