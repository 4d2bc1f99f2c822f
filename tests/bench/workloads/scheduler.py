"""Tasks that pass packets through queues, in the manner of Richards: many
small objects and method calls. scheduler.py PACKETS."""

import sys


class Packet:
    def __init__(self, owner, payload, link=None):
        self.owner = owner
        self.payload = payload
        self.link = link


class Task:
    def __init__(self, name, following):
        self.name = name
        self.following = following
        self.queue = None
        self.done = 0

    def accept(self, packet):
        packet.link = self.queue
        self.queue = packet

    def run(self):
        while self.queue is not None:
            packet, self.queue = self.queue, self.queue.link
            payload = [value + 1 for value in packet.payload]
            self.done += 1
            if self.following is not None:
                self.following.accept(Packet(self.name, payload))


tasks = [Task("last", None)]
for number in range(5):
    tasks.append(Task("task %d" % number, tasks[-1]))
for number in range(int(sys.argv[1]) // 50):
    for packet in range(50):
        tasks[-1].accept(Packet("source", [number, packet, 1000]))
    for task in reversed(tasks):
        task.run()
