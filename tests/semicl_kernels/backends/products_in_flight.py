"""Finds instructions that touch a register of a warp-group product before that product is waited for.

HGMMA reads and writes registers while later instructions run. Its accumulators, and the fragments of a left operand in
registers, belong to it until a WARPGROUP.DEPBAR that covers it; the hardware checks none of that. The functions here
follow every path through the code of a kernel, as nvdisasm lists it, with the products that may be in flight on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# While products are in flight, any other instruction is an error: its operands' widths are not known here.
ONE_REGISTER = {
    "BAR", "BREAK", "BSSY", "BSYNC", "ELECT", "ENDCOLLECTIVE", "F2FP", "FADD", "FCHK", "FENCE", "FFMA", "FMNMX",
    "FMUL", "FSEL", "FSETP", "HADD2", "IABS", "IADD3", "IMAD", "IMNMX", "ISETP", "LEA", "LOP3", "MEMBAR", "MOV", "MUFU",
    "NOP", "P2R", "PLOP3", "PRMT", "R2P", "R2UR", "REDUX", "S2R", "S2UR", "SEL", "SHF", "SHFL", "SYNCS", "VIADD",
    "VIADDMNMX", "VIMNMX", "VIMNMX3", "VOTE", "VOTEU", "WARPSYNC", "YIELD", "BRA", "EXIT",
}  # fmt: skip
UNIFORM = re.compile(r"U[A-Z0-9]+|R2UR|S2UR")  # of uniform registers, but for R2UR's source
MEMORY = {"LDC", "LDG", "LDS", "STG", "STS", "LDSM", "LDGSTS"}
MOST_GROUPS = 8  # that are told apart
FRAGMENT = 4  # registers of the left operand, 64 x 16 numbers of 16 bits among 128 threads

Registers = frozenset[int]


class Instruction(NamedTuple):
    """One line of a listing: ``@!P0 LDG.E.64 R4, desc[UR4][R2.64]``."""

    text: str
    conditional: bool
    opcode: tuple[str, ...]  # ("LDG", "E", "64")
    operands: str

    @staticmethod
    def parse(text: str) -> Instruction:
        found = re.fullmatch(r"(@!?U?P\w+\s+)?([A-Z]\S*)\s*(.*)", text)
        assert found is not None, text
        return Instruction(text, found[1] is not None, tuple(found[2].split(".")), found[3])

    @property
    def name(self) -> str:
        return self.opcode[0]


class InFlight(NamedTuple):
    """The registers of products that are not waited for: of each committed group, and of the open one; and the label
    that each convergence barrier was set for."""

    committed: tuple[Registers, ...] = ()
    open: Registers = frozenset()
    barriers: tuple[tuple[str, str], ...] = ()

    @property
    def registers(self) -> Registers:
        return self.open.union(*self.committed)

    def __bool__(self) -> bool:
        return bool(self.open or self.committed)


class Violation(NamedTuple):
    position: int
    instruction: str
    registers: tuple[int, ...]


class Code:
    """The instructions of one kernel, and where its labels stand."""

    def __init__(self, listing: str) -> None:
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        for label, text in re.findall(r"^(?:(\.\S+):|\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;)", listing, re.MULTILINE):
            if label:
                self.labels[label] = len(self.instructions)
            else:
                self.instructions.append(Instruction.parse(text))

    def positions(self, name: str) -> list[int]:
        return [i for i, one in enumerate(self.instructions) if ".".join(one.opcode).startswith(name)]

    def with_instruction(self, position: int, text: str) -> Code:
        """The same code with another instruction at the position."""
        changed = Code("")
        changed.labels = self.labels
        changed.instructions = [*self.instructions]
        changed.instructions[position] = Instruction.parse(text)
        return changed

    def violations(self) -> list[Violation]:
        """Every instruction that touches a register of a product in flight, on some path."""
        found: set[Violation] = set()
        seen: set[tuple[int, InFlight]] = set()
        # From each label on, since where an indirect jump leads is not known; with products in flight it is an error.
        paths = [(position, InFlight()) for position in (0, *self.labels.values())]
        while paths:
            position, state = paths.pop()
            while position < len(self.instructions) and (position, state) not in seen:
                seen.add((position, state))
                one = self.instructions[position]
                touched = touched_early(one, state)
                if touched is not None:
                    found.add(Violation(position, one.text, touched))
                jumps = targets(one, state)
                state = after(one, state)
                paths += [(self.labels[label], state) for label in jumps if label in self.labels]
                if ends_path(one) or (one.name == "BSYNC" and jumps and not one.conditional):
                    break
                position += 1
        return sorted(found)


def targets(one: Instruction, state: InFlight) -> list[str]:
    if one.name == "BSYNC":
        return [label for barrier, label in state.barriers if barrier == one.operands]
    return re.findall(r"`\((\.\S+?)\)", one.operands) if one.name in ("BRA", "WARPSYNC", "CALL") else []


def ends_path(one: Instruction) -> bool:
    """Whether what follows is only reached by a jump. Some branches are conditional by an operand."""
    by_operand = len(one.opcode) > 1 or re.match(r"!?U?P\w", one.operands) is not None
    return one.name in ("BRA", "EXIT", "RET") and not one.conditional and not (one.name == "BRA" and by_operand)


def product_registers(one: Instruction) -> tuple[Registers, Registers]:
    """The accumulators of an HGMMA, and the fragment in registers, if its left operand is one."""
    shape = re.match(r"64x(\d+)x16", one.opcode[1])
    found = re.match(r"R(\d+), (?:R(\d+), )?gdesc\[UR\d+\][.\w]*, (?:R(\d+)|RZ)", one.operands)
    assert shape is not None, one.text
    assert found is not None, one.text
    assert found[3] in (None, found[1]), f"a product added to other registers: {one.text}"
    first = int(found[1])
    accumulators = frozenset(range(first, first + int(shape[1]) // 2))
    return accumulators, span(int(found[2]), FRAGMENT) if found[2] else frozenset()


def after(one: Instruction, state: InFlight) -> InFlight:
    if one.name == "HGMMA":
        products = state.open.union(*product_registers(one))
        if "gsb0" in one.operands:
            groups = (*state.committed, products)
            if len(groups) > MOST_GROUPS:  # a loop that never waits would have ever more
                groups = (groups[0] | groups[1], *groups[2:])
            return state._replace(committed=groups, open=frozenset())
        return state._replace(open=products)
    if one.name == "BSSY":
        barrier, label = re.findall(r"B\d+|\.L\w+", one.operands)
        return state._replace(barriers=tuple(sorted({**dict(state.barriers), barrier: label}.items())))
    if one.name == "BSYNC" and state.barriers:
        return state._replace(barriers=tuple(pair for pair in state.barriers if pair[0] != one.operands))
    if one.opcode[:2] == ("WARPGROUP", "DEPBAR"):
        found = re.fullmatch(r"gsb0, (0x[0-9a-f]+)", one.operands)
        assert found is not None, one.text
        assert one.opcode[2:] == ("LE",), one.text
        assert not one.conditional, one.text
        left = int(found[1], 16)
        return state._replace(committed=state.committed[max(0, len(state.committed) - left) :])
    return state


def touched_early(one: Instruction, state: InFlight) -> tuple[int, ...] | None:
    """The registers in flight that an instruction touches, or None; () for a jump whose aim is not known."""
    if not state or one.name == "WARPGROUP":
        return None
    if one.name in ("CALL", "RET", "BRX", "JMX"):
        return ()
    if one.name == "HGMMA":
        accumulators, fragment = product_registers(one)
        # Products add up in their order: one may follow another into the same accumulators, and read the same fragment.
        touched = {
            register
            for product in (*state.committed, state.open)
            if product
            for register in (accumulators | fragment) & product
            if not (register in accumulators and accumulators <= product)
            and not (register in fragment and fragment <= product and not fragment & accumulators)
        }
        return tuple(sorted(touched)) or None
    return tuple(sorted(state.registers.intersection(registers(one)))) or None


def span(first: int, count: int) -> Registers:
    return frozenset(range(first, first + count))


def registers(one: Instruction) -> Iterator[int]:
    """Every register of 32 bits that an instruction reads or writes, but for HGMMA."""
    operands = re.findall(r"\[[^\]]*\]|[^,\s\[\]]+", one.operands)
    outside = [(i, int(r)) for i, text in enumerate(operands) for r in re.findall(r"(?<![\w\[.+])-?\|?~?R(\d+)", text)]
    for text in operands:
        if text.startswith("["):
            for register, pair in re.findall(r"\bR(\d+)\b(\.64)?", text):
                yield from span(int(register), 2 if pair else 1)
    for order, (place, register) in enumerate(outside):
        yield from span(register, width(one, order == 0 and place == 0, order == len(outside) - 1))


def width(one: Instruction, is_first: bool, is_last: bool) -> int:
    """How many registers an operand is that is not an address."""
    sizes = [part for part in one.opcode if part in ("64", "128", "2", "4", "M88")]
    if one.name in MEMORY:
        return 4 if "128" in sizes or "4" in sizes else 2 if "64" in sizes or "2" in sizes else 1
    if one.name == "IMAD" and "WIDE" in one.opcode:
        return 2 if is_first or is_last else 1
    if one.name == "CS2R":
        return 1 if "32" in one.opcode else 2
    if one.name in ("I2F", "F2I", "F2F", "I2FP"):
        return 2 if {"U64", "S64", "F64"} & {*one.opcode} else 1
    assert one.name in ONE_REGISTER or UNIFORM.fullmatch(one.name), f"how wide are the operands of {one.text}?"
    return 1
