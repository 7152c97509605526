//! Interprets the program as the kernel would run it, and counts what it does. This is not to see whether the program is right,
//! which the kernel's own runner is for, but what a packet costs without a clock.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use lb_common::abi::{ATTACHED_PLACE, Stage};

use super::code::{Code, Instruction, Refers};
use super::memory::{CONSTANTS, CONTEXT, FRAME, Memory, STACK, STACK_OF_A_FUNCTION};

/// What a packet took.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cost {
    /// By what it is: instructions, atomic ones among them, tail calls, calls of functions and of each helper.
    pub counted: BTreeMap<&'static str, u64>,
    pub action: u64,
}

impl Cost {
    fn count(&mut self, what: &'static str) {
        *self.counted.entry(what).or_default() += 1;
    }
}

pub struct Machine<'a> {
    pub code: &'a Code,
    pub memory: Memory,
    pub ingress: u32,
    pub jiffies: u64,
}

/// Ends a program that does not end.
const MOST: u64 = 100_000;
const TAIL_CALL: i32 = 12;
const MAP_TAG: u64 = 1 << 62;

impl Machine<'_> {
    /// Runs the attached program on the frame in the memory.
    pub fn run(&mut self) -> anyhow::Result<Cost> {
        let mut cost = Cost::default();
        let mut registers = [0u64; 11];
        let mut callers: Vec<(usize, [u64; 11])> = Vec::new();
        let mut at = self.start("lb")?;
        registers[1] = CONTEXT;
        registers[10] = STACK + STACK_OF_A_FUNCTION;
        for _ in 0..MOST {
            let it = *self.code.instructions.get(at).context("beyond the code")?;
            cost.count("instructions");
            at += 1;
            let jumped = (at as i64 + i64::from(it.offset)) as usize;
            match it.code {
                0x18 => {
                    let next = self.code.instructions.get(at).context("half an instruction")?;
                    registers[it.to] = match it.refers {
                        Refers::Map(map) => MAP_TAG | map as u64,
                        Refers::Constant(offset) => {
                            CONSTANTS + u64::from(offset) + u64::from(it.immediate as u32)
                        }
                        _ => u64::from(it.immediate as u32) | u64::from(next.immediate as u32) << 32,
                    };
                    at += 1;
                }
                0x05 => at = jumped,
                0x85 if it.from == 1 => {
                    cost.count("functions");
                    callers.push((at, registers));
                    let Refers::Function(function) = it.refers else {
                        bail!("a call of nothing");
                    };
                    registers[10] += STACK_OF_A_FUNCTION;
                    at = function;
                }
                0x85 if it.immediate == TAIL_CALL => {
                    cost.count("tail calls");
                    at = self.successor(registers[3] as u32)?;
                    registers[1] = CONTEXT;
                }
                0x85 => registers[0] = self.help(it.immediate, &registers, &mut cost)?,
                0x95 => match callers.pop() {
                    None => {
                        cost.action = registers[0];
                        return Ok(cost);
                    }
                    Some((back, before)) => {
                        at = back;
                        registers[6..].copy_from_slice(&before[6..]);
                    }
                },
                code if code & 7 == 5 || code & 7 == 6 => {
                    if holds(it, &registers)? {
                        at = jumped;
                    }
                }
                code if code & 7 == 4 || code & 7 == 7 => registers[it.to] = computed(it, &registers)?,
                _ => self.access(it, &mut registers, &mut cost)?,
            }
        }
        bail!("more than {MOST} instructions")
    }

    fn start(&self, program: &str) -> anyhow::Result<usize> {
        let start = self.code.starts.get(program);
        start.copied().with_context(|| format!("no program {program}"))
    }

    fn successor(&self, place: u32) -> anyhow::Result<usize> {
        if place == ATTACHED_PLACE {
            return self.start("lb");
        }
        let stage = Stage::ALL.get(place as usize).context("no such stage")?;
        self.start(stage.program())
    }

    /// Loads and stores.
    fn access(&mut self, it: Instruction, registers: &mut [u64; 11], cost: &mut Cost) -> anyhow::Result<()> {
        let size = match it.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        };
        let address = |base: u64| base.wrapping_add(it.offset as u64);
        match (it.code & 7, it.code & 0xe0) {
            (1, 0x60) => {
                let from = address(registers[it.from]);
                registers[it.to] = match from.checked_sub(CONTEXT) {
                    Some(field) if from < FRAME => self.context(field)?,
                    _ => self.memory.load(from, size)?,
                };
            }
            (2, 0x60) => self
                .memory
                .store(address(registers[it.to]), size, it.immediate as u64)?,
            (3, 0x60) => self
                .memory
                .store(address(registers[it.to]), size, registers[it.from])?,
            (3, 0xc0) => {
                cost.count("atomic instructions");
                let to = address(registers[it.to]);
                let old = self.memory.load(to, size)?;
                let operand = registers[it.from];
                let new = match it.immediate {
                    0x00 | 0x01 => old.wrapping_add(operand),
                    0xe1 => operand,
                    0xf1 if old == registers[0] => operand,
                    0xf1 => old,
                    other => bail!("atomic operation {other:#x}"),
                };
                self.memory.store(to, size, new)?;
                match it.immediate {
                    0xf1 => registers[0] = old,
                    0x01 | 0xe1 => registers[it.from] = old,
                    _ => {}
                }
            }
            _ => bail!("instruction {:#x}", it.code),
        }
        Ok(())
    }

    /// `struct xdp_md`.
    fn context(&self, field: u64) -> anyhow::Result<u64> {
        Ok(match field {
            0 => FRAME,
            4 => FRAME + self.memory.frame.len() as u64,
            12 => u64::from(self.ingress),
            other => bail!("field {other} of the context"),
        })
    }

    fn help(&mut self, helper: i32, registers: &[u64; 11], cost: &mut Cost) -> anyhow::Result<u64> {
        Ok(match helper {
            1 => {
                cost.count("map_lookup_elem");
                let index = self.memory.load(registers[2], 4)?;
                self.memory.element((registers[1] & !MAP_TAG) as usize, index)
            }
            7 => {
                cost.count("get_prandom_u32");
                4
            }
            23 => {
                cost.count("redirect");
                4
            }
            44 => {
                cost.count("xdp_adjust_head");
                let growth = -(registers[2] as i32);
                let grown = vec![0; usize::try_from(growth).context("only growing is known")?];
                self.memory.frame.splice(0..0, grown);
                0
            }
            118 => {
                cost.count("jiffies64");
                self.jiffies
            }
            other => bail!("helper {other}: tell the interpreter what it does"),
        })
    }
}

fn operand(it: Instruction, registers: &[u64; 11]) -> u64 {
    if it.code & 8 == 0 {
        it.immediate as u64
    } else {
        registers[it.from]
    }
}

fn holds(it: Instruction, registers: &[u64; 11]) -> anyhow::Result<bool> {
    let (mut a, mut b) = (registers[it.to], operand(it, registers));
    if it.code & 7 == 6 {
        (a, b) = (i64::from(a as i32) as u64, i64::from(b as i32) as u64);
    }
    let (signed_a, signed_b) = (a as i64, b as i64);
    Ok(match it.code >> 4 {
        0x1 => a == b,
        0x2 => a > b,
        0x3 => a >= b,
        0x4 => a & b != 0,
        0x5 => a != b,
        0x6 => signed_a > signed_b,
        0x7 => signed_a >= signed_b,
        0xa => a < b,
        0xb => a <= b,
        0xc => signed_a < signed_b,
        0xd => signed_a <= signed_b,
        _ => bail!("jump {:#x}", it.code),
    })
}

fn computed(it: Instruction, registers: &[u64; 11]) -> anyhow::Result<u64> {
    let wide = it.code & 7 == 7;
    let (a, b) = (registers[it.to], operand(it, registers));
    if it.code >> 4 == 0xd {
        // To big-endian, of a little-endian machine.
        return match (it.code & 8, it.immediate) {
            (8, 16) => Ok(u64::from((a as u16).swap_bytes())),
            (8, 32) => Ok(u64::from((a as u32).swap_bytes())),
            (8, 64) => Ok(a.swap_bytes()),
            _ => bail!("byte order {:#x} of {} bits", it.code, it.immediate),
        };
    }
    let (a, b, bits) = if wide {
        (a, b, 64)
    } else {
        (u64::from(a as u32), u64::from(b as u32), 32)
    };
    let shift = b as u32 & (bits - 1);
    let result = match it.code >> 4 {
        0x0 => a.wrapping_add(b),
        0x1 => a.wrapping_sub(b),
        0x2 => a.wrapping_mul(b),
        0x3 => a.checked_div(b).unwrap_or(0),
        0x4 => a | b,
        0x5 => a & b,
        0x6 => a << shift,
        0x7 => a >> shift,
        0x8 => a.wrapping_neg(),
        0x9 => a.checked_rem(b).unwrap_or(a),
        0xa => a ^ b,
        0xb => b,
        0xc if wide => ((a as i64) >> shift) as u64,
        0xc => ((a as i32) >> shift) as u64,
        _ => bail!("operation {:#x}", it.code),
    };
    Ok(if wide { result } else { u64::from(result as u32) })
}
