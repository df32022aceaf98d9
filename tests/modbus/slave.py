"""A Modbus slave for the tests: pymodbus on TCP, on a serial port, or RTU frames over TCP.

Values come from a file of lines `unit table address value` (table: d, c, i, h), read again whenever it changes; a unit
that the file does not name does not exist, and never answers on a serial line.
"""

import argparse
import asyncio
import os

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

SIZE = 32
FUNCTIONS = {"c": 1, "d": 2, "h": 3, "i": 4}


def lines(path):
    """The file's values: (unit, table, address, value)."""
    with open(path, encoding="ascii") as file:
        for line in file:
            unit, table, address, value = line.split()
            yield int(unit), table, int(address), int(value)


def device(unit):
    """A device with four small tables."""

    def bits():
        return [SimData(0, values=[False] * SIZE, datatype=DataType.BITS)]

    def registers():
        return [SimData(0, values=[0] * SIZE, datatype=DataType.REGISTERS)]

    return SimDevice(unit, simdata=(bits(), bits(), registers(), registers()))


async def follow(path, server):
    """Takes over the file whenever it changes."""
    seen = None
    while True:
        now = os.stat(path)
        mark = (now.st_mtime_ns, now.st_ino)
        if mark != seen:
            seen = mark
            for unit, table, address, value in lines(path):
                function = FUNCTIONS[table]
                values = [bool(value)] if table in "cd" else [value]
                await server.context.async_setValues(unit, function, address, values)
        await asyncio.sleep(0.01)


async def main():
    """Serves until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", required=True)
    parser.add_argument("--tcp", type=int)
    parser.add_argument("--rtu-over-tcp", type=int)
    parser.add_argument("--serial")
    args = parser.parse_args()
    units = sorted({unit for unit, *_ in lines(args.values)})
    devices = [device(unit) for unit in units]

    def known(sending, packet):
        """Keeps back what the library answers for units that do not exist: on a line they are silent."""
        return b"" if sending and packet[0] not in units else packet

    if args.serial:
        server = ModbusSerialServer(
            devices, framer=FramerType.RTU, port=args.serial, baudrate=115200, trace_packet=known
        )
    else:
        framer = FramerType.SOCKET if args.tcp else FramerType.RTU
        address = ("127.0.0.1", args.tcp or args.rtu_over_tcp)
        server = ModbusTcpServer(devices, framer=framer, address=address)
    await asyncio.gather(server.serve_forever(), follow(args.values, server))


asyncio.run(main())
