"""The cycle estimate: instructions as objdump writes them, and snippets whose cycles were worked out by hand."""

from __future__ import annotations

import pytest

from tvmtiny.errors import UserError
from tvmtiny.report.assembly import instruction, parse, straight
from tvmtiny.report.cycles import MODELS, block_cycles, core_model
from tvmtiny.target import CORES, HOST, list_targets


def registers(names: str) -> set[str]:
    return set(names.split())


@pytest.mark.parametrize(
    ("text", "name", "reads", "writes"),
    [
        ("adds r0, #1", "adds", "r0", "r0 flags"),
        ("add.w r3, r9, r1, lsl #2", "add", "r9 r1", "r3"),
        ("mov.w sl, r9, lsl #1", "mov", "r9", "r10"),
        ("moveq r0, r1", "mov", "r0 r1 flags", "r0"),
        ("cmp.w r1, #4800", "cmp", "r1", "flags"),
        ("ldrb.w r3, [r0, #1]!", "ldrb", "r0", "r3 r0"),
        ("ldr r0, [r0, r1]", "ldr", "r0 r1", "r0"),
        ("ldrd r0, r1, [r2], #8", "ldrd", "r2", "r0 r1 r2"),
        ("str.w r1, [r2, r3, lsl #2]", "str", "r1 r2 r3", ""),
        ("strhi r1, [r2]", "str", "r1 r2 flags", ""),
        ("ldmia.w r0!, {r1, r2, fp}", "ldmia", "r0", "r0 r1 r2 r11"),
        ("push {r4, lr}", "push", "sp r4 lr", "sp"),
        ("pop {r4, pc}", "pop", "sp", "sp r4 pc"),
        ("vpush {d8-d10}", "vpush", "sp d8 d9 d10", "sp"),
        ("smlad r0, r1, r2, r3", "smlad", "r1 r2 r3", "r0"),
        ("smlal r0, r1, r2, r3", "smlal", "r0 r1 r2 r3", "r0 r1"),
        ("smull r0, r1, r2, r3", "smull", "r2 r3", "r0 r1"),
        ("ssat r0, #8, r1, asr #2", "ssat", "r1", "r0"),
        ("bne.n 88 <r1_run+0x48>", "b", "flags", ""),
        ("bls.w 88 <run>", "b", "flags", ""),
        ("bl 88 <run>", "bl", "", "lr"),
        ("cbz r2, 3a <run>", "cbz", "r2", ""),
        ("bics r0, r1", "bics", "r0 r1", "r0 flags"),
        ("lsls r0, r1, #2", "lsls", "r1", "r0 flags"),
        ("itte ne", "it", "flags", ""),
        ("vldrw.u32 q3, [r1, #0]", "vldrw.u32", "r1", "q3"),
    ],
)
def test_registers_of_an_instruction(text: str, name: str, reads: str, writes: str) -> None:
    mnemonic, _, operands = text.partition(" ")
    found = instruction(mnemonic, operands)
    assert found.name == name
    assert (found.reads, found.writes) == (registers(reads), registers(writes))


def test_lines_of_objdump() -> None:
    found = parse("200002bc:\tldr.w\tr3, [pc, #816]\t@ (3d8 <intent_run+0x398>)")
    assert found is not None
    assert (found.address, found.name, found.reads) == (0x2000_02BC, "ldr", {"pc"})
    assert parse("     3d8:\t.word\t0x00001020") is None
    assert parse("00000040 <intent_run>:") is None
    assert parse("      40:\tnop") is not None


# Cortex-M4 and -M3: examples of the Technical Reference Manual, section 3.3.2, and its table in 3.3.1.
SNIPPETS = [
    ("cortex-m4", "ldr r0, [r1]\nldr r1, [r2]", 2 + 1),
    ("cortex-m4", "ldr r0, [r1, r2]\nstr r0, [r3, #20]", 2 + 1),
    ("cortex-m4", "ldr r0, [r1, r2]\nstr r1, [r3, r2]", 2 + 1),
    ("cortex-m4", "ldr r0, [r1, r5]\nldr r1, [r2]\nldr r2, [r3, #4]", 2 + 1 + 1),
    ("cortex-m4", "ldr r0, [r1]\nldr r2, [r0]", 2 + 2),
    ("cortex-m4", "str r0, [r1, #4]\nldr r2, [r3]", 1 + 2),
    ("cortex-m4", "str r0, [r1, r2]", 2),
    ("cortex-m4", "add r0, r1, #4\nldr r2, [r0]", 1 + 2 + 1),
    ("cortex-m4", "ldmia.w r0!, {r1, r2, r3, r4}", 1 + 4),
    ("cortex-m4", "ldrd r0, r1, [r2]\nldr r3, [r4]", 3 + 2),
    ("cortex-m4", "smlad r0, r1, r2, r0\nsmmulr r0, r0, r3\nsmull r4, r5, r6, r7\nudiv r0, r0, r1", 1 + 1 + 1 + 7),
    ("cortex-m4", "push {r4, r5, lr}\npop {r4, r5, pc}", (1 + 3) + (1 + 3)),
    ("cortex-m33", "ldr r0, [r1]\nmla r2, r0, r0, r2\nbx lr", 2 + 1 + 1),
    ("cortex-m3", "mul r0, r1, r2\nmla r0, r1, r2, r0\nsmull r4, r5, r6, r7\nsmlal r4, r5, r6, r7", 1 + 2 + 4 + 5),
    ("cortex-m3", "ldrb.w r0, [r1, #1]!\nldrb.w r2, [r3, #1]!", 2 + 2),
    ("cortex-m4", "ldrb.w r0, [r1, #1]!\nldrb.w r2, [r3, #1]!", 2 + 1),
    # Cortex-M0 (DDI 0432, section 3.3): loads and stores 2, LDM 1 + N, BL 4 with what a taken branch adds (2).
    ("cortex-m0", "ldrb r0, [r1, #0]\nldr r2, [r3, r4]\nmuls r0, r2\nstrb r0, [r1, #0]", 2 + 2 + 1 + 2),
    ("cortex-m0", "ldmia r0!, {r1, r2, r3}\nbl 88 <f>", (1 + 3) + 2),
    ("cortex-m0plus", "adds r0, #1\npop {r4, pc}", 1 + (2 + 2)),
    # Cortex-M7: issue cycles in brackets.
    ("cortex-m7", "add r0, r1, #1\nadd r2, r3, #1", 1),  # (0 0)
    ("cortex-m7", "add r0, r1, #1\nadd r2, r0, #1", 2),  # (0 1)
    ("cortex-m7", "add r0, r1, #1\nmov r0, r3", 2),  # (0 1): both write r0
    ("cortex-m7", "ldr r0, [r1]\nldr r2, [r3]", 2),  # (0 1): one load and store unit
    ("cortex-m7", "ldr r0, [r1]\nadd r2, r3, #1\nadd r4, r0, #1", 3),  # (0 0 2): the loaded value after 2 cycles
    ("cortex-m7", "smlad r2, r0, r1, r2\nsmlad r2, r0, r1, r2\nadd r3, r2, #1", 4),  # (0 1 3)
    ("cortex-m7", "ldmia.w r0!, {r1, r2, r3, r4}\nldr r5, [r6]", 3),  # (0 2): two words a cycle
    ("cortex-m7", "sxtb16 r0, r1\nsxtb16 r2, r3", 2),  # (0 1): one unit for packed values
    # Cortex-M55: issue cycles in brackets, then when the last unit is free; a vector keeps its unit for two cycles.
    ("cortex-m55", "vldrb.u8 q0, [r0], #16\nvmlava.s8 r2, q1, q2", 3),  # (0 1) 3
    ("cortex-m55", "vldrb.u8 q0, [r0], #16\nvmlava.s8 r2, q1, q0", 3),  # (0 1) 3: the first half is loaded
    ("cortex-m55", "vldrb.u8 q0, [r0], #16\nvldrb.u8 q1, [r1], #16", 4),  # (0 2) 4: one unit
    ("cortex-m55", "vmlava.s8 r0, q0, q1\nadd r3, r3, #1\nvmlava.s8 r2, q0, q1", 4),  # (0 1 2) 4
    ("cortex-m55", "vmul.i32 q0, q0, r2\nvadd.i32 q0, q0, q1", 4),  # (0 2) 4: a product after two cycles
    ("cortex-m55", "vmlava.s8 r0, q0, q1\nadd r3, r0, #1", 4),  # (0 3) 4
    ("cortex-m55", "vaddva.s32 r0, q0\nvaddva.s32 r0, q1", 4),  # (0 2) 4
    ("cortex-m55", "vmaxv.s32 r0, q0\nmov r1, r0", 3),  # (0 2) 3
    ("cortex-m55", "vldrb.u32 q1, [r0, q0]\nvstrb.32 q1, [r1], #4", 6),  # (0 4) 6: a gather of four
    ("cortex-m55", "vldrb.u8 q1, [r0, q0]\nveor q1, q1, q2", 17),  # (0 15) 17: a gather of sixteen
    ("cortex-m55", "vpst\nvldrbt.u8 q0, [r0]\nvctp.8 r1", 3),  # (0 1 2) 3
    ("cortex-m55", "ldr r0, [r1]\nadd r2, r0, #1\nletp lr, 1e <f>", 3),  # (0 2 -) 3
    ("cortex-m55", "stmia.w r1!, {r0, r2, r4, r6}\nvldrb.u8 q0, [r3], #16", 6),  # (0 4) 6
    ("cortex-m55", "vnosuch.i32 q0, q1, q2\nvldrb.u8 q0, [r0], #16\nvmul.i32 q3, q3, r2", 5),  # (0 2 3) 5: all units
]  # fmt: skip


@pytest.mark.parametrize(("cpu", "text", "cycles"), SNIPPETS)
def test_cycles_of_a_snippet(cpu: str, text: str, cycles: int) -> None:
    assert core_model(cpu).cycles(straight(text)) == cycles


LOOP = "ldr r0, [r1], #4\nldr r2, [r3], #4\nsmlad r4, r0, r2, r4\nsubs r5, #1\nbne.n 88 <f>"


@pytest.mark.parametrize(
    ("cpu", "cycles"),
    [
        ("cortex-m4", 10 * (2 + 1 + 1 + 1 + 1) + 9 * 2),
        # Issued in cycles 0 1 3 3 4; leaving the loop is mispredicted once.
        ("cortex-m7", 10 * 5 + 4),
    ],
)
def test_loop_pays_for_the_branches_that_it_takes(cpu: str, cycles: int) -> None:
    assert block_cycles(core_model(cpu), straight(LOOP), entered=10, left=9) == cycles


def test_low_overhead_loop_pays_no_refill() -> None:
    block = straight("add r0, r1, #1\nle lr, 2a <f>")
    assert block_cycles(core_model("cortex-m55"), block, entered=10, left=9) == 10


def test_every_core_has_a_model_that_explains_itself() -> None:
    assert set(MODELS) == set(CORES) - {HOST}
    for target in list_targets():
        if target.cpu != HOST:
            assert core_model(target.cpu).assumptions
    with pytest.raises(UserError, match="host"):
        core_model(HOST)
