//! What stacks come to function by function, apart from the stacks, so that it can be kept.

use hashbrown::HashMap;

use super::{Stacks, Sums};
use crate::model::NONE;

/// What values of stacks come to, function by function, in several parts. It names those functions itself, so it outlives the stacks.
#[derive(Debug, Default)]
pub struct Summed {
    /// The names of the functions and of their files, one after the other.
    texts: String,
    functions: Vec<SummedFunction>,
    /// Where in the texts each file begins and ends.
    files: Vec<(u32, u32)>,
    parts: Vec<SummedPart>,
}

#[derive(Clone, Copy, Debug)]
struct SummedFunction {
    hash: u64,
    /// Where in the texts its name begins and ends.
    name: (u32, u32),
    file: u32,
}

#[derive(Debug)]
struct SummedPart {
    group: u32,
    total: i128,
    sums: SummedFunctions,
}

/// Sums by the numbers of functions.
#[derive(Debug)]
enum SummedFunctions {
    /// The self value and the total of each, which mostly take 64 bits.
    Narrow(Vec<(u32, i64, i64)>),
    Wide(Vec<(u32, Sums)>),
}

// === impl Stacks ===

impl Stacks<'_> {
    /// Sums values of these stacks in several parts, each a group and pairs of the number of a stack and its value. A stack may stand several
    /// times; one that is left out does not count.
    pub fn sum<V: Iterator<Item = (usize, i128)>>(&self, parts: impl IntoIterator<Item = (u32, V)>) -> Summed {
        let (mut summing, mut all) = (self.summing(), Vec::new());
        let (mut numbers, mut names) = (vec![NONE; self.functions()], Vec::with_capacity(self.functions()));
        for (group, values) in parts {
            let (total, mut sums) = summing.sums(values);
            for (name, _) in &mut sums {
                let number = &mut numbers[*name as usize];
                if *number == NONE {
                    *number = names.len() as u32;
                    names.push(*name);
                }
                *name = *number;
            }
            all.push(SummedPart { group, total, sums: SummedFunctions::new(sums) });
        }
        Summed { parts: all, ..self.named(&names) }
    }

    /// Returns no sums, but functions for them.
    fn named(&self, functions: &[u32]) -> Summed {
        // Mostly a file has several functions.
        let (mut files, mut numbers) = (Vec::new(), HashMap::new());
        let mut number = |file| {
            *numbers.entry(file).or_insert_with(|| {
                files.push(file);
                files.len() as u32 - 1
            })
        };
        let of_functions: Vec<u32> = functions.iter().map(|&function| number(self.name(function).1)).collect();
        let names = functions.iter().map(|&function| self.name(function).0);
        let bytes = names.clone().chain(files.iter().copied()).map(str::len).sum();
        let mut summed = Summed {
            texts: String::with_capacity(bytes),
            functions: Vec::with_capacity(functions.len()),
            files: Vec::with_capacity(files.len()),
            parts: Vec::new(),
        };
        for file in files {
            let text = summed.add_text(file);
            summed.files.push(text);
        }
        for ((name, &function), file) in names.zip(functions).zip(of_functions) {
            let (hash, name) = (self.hashes[function as usize], summed.add_text(name));
            summed.functions.push(SummedFunction { hash, name, file });
        }
        summed
    }
}

// === impl Summed, SummedFunctions ===

impl Summed {
    fn add_text(&mut self, text: &str) -> (u32, u32) {
        let at = |texts: &str| u32::try_from(texts.len()).expect("the strings of tables have fewer than 2^32 bytes");
        let start = at(&self.texts);
        self.texts.push_str(text);
        (start, at(&self.texts))
    }

    /// Returns the names and the source files of its functions, in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.hashed_names().map(|(_, name, file)| (name, file))
    }

    /// The same with the hash of each name.
    pub(super) fn hashed_names(&self) -> impl Iterator<Item = (u64, &str, &str)> {
        let text = |(start, end): (u32, u32)| &self.texts[start as usize..end as usize];
        let name = move |of: &SummedFunction| (of.hash, text(of.name), text(self.files[of.file as usize]));
        self.functions.iter().map(name)
    }

    /// Returns the parts: the group of each, the sum of all its samples, and the sums of its functions by their numbers.
    pub fn parts(&self) -> impl Iterator<Item = (u32, i128, impl ExactSizeIterator<Item = (u32, Sums)> + '_)> {
        self.parts.iter().map(|part| (part.group, part.total, part.sums.iter()))
    }

    /// Returns how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        let of = |part: &SummedPart| size_of::<SummedPart>() + part.sums.memory();
        self.texts.capacity()
            + self.functions.capacity() * size_of::<SummedFunction>()
            + self.files.capacity() * size_of::<(u32, u32)>()
            + self.parts.iter().map(of).sum::<usize>()
    }
}

impl SummedFunctions {
    fn new(sums: Vec<(u32, Sums)>) -> Self {
        let narrow = |(number, sums): &(u32, Sums)| {
            Some((*number, i64::try_from(sums.self_value).ok()?, i64::try_from(sums.total).ok()?))
        };
        let mut all = Vec::with_capacity(sums.len());
        all.extend(sums.iter().map_while(narrow));
        if all.len() == sums.len() { Self::Narrow(all) } else { Self::Wide(sums) }
    }

    fn len(&self) -> usize {
        match self {
            Self::Narrow(sums) => sums.len(),
            Self::Wide(sums) => sums.len(),
        }
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (u32, Sums)> + '_ {
        (0..self.len()).map(move |at| match self {
            Self::Narrow(sums) => {
                let (number, self_value, total) = sums[at];
                (number, Sums { self_value: self_value.into(), total: total.into() })
            }
            Self::Wide(sums) => sums[at].clone(),
        })
    }

    fn memory(&self) -> usize {
        match self {
            Self::Narrow(sums) => sums.capacity() * size_of::<(u32, i64, i64)>(),
            Self::Wide(sums) => sums.capacity() * size_of::<(u32, Sums)>(),
        }
    }
}
