//! The object's instructions, with what they refer to put in.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

/// An instruction as it is encoded (`struct bpf_insn`).
#[derive(Debug, Clone, Copy)]
pub struct Instruction {
    pub code: u8,
    pub to: usize,
    pub from: usize,
    pub offset: i16,
    pub immediate: i32,
    pub refers: Refers,
}

/// What an instruction refers to beyond what is encoded in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refers {
    Nothing,
    /// To a map, by its place in [`Code::maps`].
    Map(usize),
    /// To a constant that the daemon sets, by its offset.
    Constant(u32),
    /// To another function, by the place of its first instruction.
    Function(usize),
}

/// All of it: functions, and the programs after them.
pub struct Code {
    pub instructions: Vec<Instruction>,
    /// Where each program and function begins.
    pub starts: BTreeMap<String, usize>,
    /// How many instructions each of them has.
    pub lengths: BTreeMap<String, u64>,
    /// The names of the maps.
    pub maps: Vec<String>,
    /// How many bytes of constants there are.
    pub constants: usize,
    /// Where the secret is that places connections, among them.
    pub table_seed: u64,
}

const BYTES: usize = 8;

impl Code {
    pub fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let file = object::File::parse(bytes)?;
        let mut code = Self {
            instructions: Vec::new(),
            starts: BTreeMap::new(),
            lengths: BTreeMap::new(),
            maps: Vec::new(),
            constants: file.section_by_name(".rodata").context("no .rodata")?.size() as usize,
            table_seed: file
                .symbol_by_name("TABLE_SEED")
                .context("no TABLE_SEED")?
                .address(),
        };
        let mut first = HashMap::new();
        for name in [".text", "xdp"] {
            let section = file.section_by_name(name).with_context(|| format!("no {name}"))?;
            first.insert(section.index(), code.instructions.len());
            let (words, _) = section.data()?.as_chunks::<BYTES>();
            code.instructions.extend(words.iter().map(decode));
        }
        for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
            let Some(from) = symbol.section_index().and_then(|index| first.get(&index)) else {
                continue;
            };
            let name = symbol.name()?.to_owned();
            code.starts
                .insert(name.clone(), from + symbol.address() as usize / BYTES);
            code.lengths.insert(name, symbol.size() / BYTES as u64);
        }
        for (section, from) in &first {
            for (offset, relocation) in file.section_by_index(*section)?.relocations() {
                let RelocationTarget::Symbol(index) = relocation.target() else {
                    bail!("a relocation without a symbol");
                };
                let symbol = file.symbol_by_index(index)?;
                let home = symbol.section_index().context("a symbol that is nowhere")?;
                let home = file.section_by_index(home)?.name()?.to_owned();
                let refers = code.target(symbol.name()?, &home, symbol.address())?;
                let at = from + offset as usize / BYTES;
                code.instructions
                    .get_mut(at)
                    .context("a relocation of nothing")?
                    .refers = refers;
            }
        }
        Ok(code)
    }

    fn target(&mut self, name: &str, home: &str, address: u64) -> anyhow::Result<Refers> {
        Ok(match home {
            "maps" => {
                let known = self.maps.iter().position(|map| map == name);
                Refers::Map(known.unwrap_or_else(|| {
                    self.maps.push(name.to_owned());
                    self.maps.len() - 1
                }))
            }
            ".rodata" => Refers::Constant(address as u32),
            ".text" => Refers::Function(*self.starts.get(name).context("no such function")?),
            other => bail!("a relocation to {name} in {other}"),
        })
    }
}

fn decode(word: &[u8; BYTES]) -> Instruction {
    let [code, registers, o0, o1, i0, i1, i2, i3] = *word;
    Instruction {
        code,
        to: usize::from(registers & 0xf),
        from: usize::from(registers >> 4),
        offset: i16::from_le_bytes([o0, o1]),
        immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        refers: Refers::Nothing,
    }
}
