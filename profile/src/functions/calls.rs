//! Who calls a function and whom it calls.

use hashbrown::HashMap;

use super::{Stacks, Sums, note_file, sorted};
use crate::memory::written;
use crate::top::Row;

/// What an entry of rows takes beside its name, in bytes, about.
const ENTRY_BYTES: usize = 3 * size_of::<Growing>();

/// A function with its direct callers and callees, and their sums, which grow.
#[derive(Debug)]
pub struct Calls {
    name: String,
    file: String,
    callers: Rows,
    callees: Rows,
}

/// Functions by name.
#[derive(Debug, Default)]
struct Rows {
    by_name: HashMap<String, Growing>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Growing {
    file: String,
    sums: Sums,
}

// === impl Calls ===

impl Calls {
    /// Starts with nothing known of the function called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), file: String::new(), callers: Rows::default(), callees: Rows::default() }
    }

    /// Adds values of stacks in several parts, each the numbers of stacks and their values, and returns the function's sums in each.
    /// A call counts once a stack, and one of a function to itself does not count, as in pprof's graphs.
    pub fn add<'a>(
        &mut self,
        stacks: &Stacks<'_>,
        parts: impl ExactSizeIterator<Item = (&'a [u32], &'a [i128])>,
    ) -> Vec<Sums> {
        let Some(name) = stacks.functions.iter().position(|name| *name == self.name) else {
            return vec![Sums::default(); parts.len()];
        };
        let name = name as u32;
        note_file(&mut self.file, stacks.name(name).1);
        // Whether the stack that ends at a node has it, as its caller's has or the node itself.
        let mut has: Vec<bool> = written(stacks.nodes.len());
        for (at, node) in stacks.nodes.iter().enumerate().skip(1) {
            has[at] = has[node.caller as usize] || stacks.names(node.first).contains(&name);
        }
        let mut values: Vec<i128> = written(stacks.leaves.len());
        let part = |(numbers, of_part): (&[u32], &[i128])| {
            let mut sums = Sums::default();
            for (&stack, &value) in numbers.iter().zip(of_part) {
                let stack = stack as usize;
                if let Some(leaf) = stacks.leaf(stack).filter(|&leaf| has[leaf as usize]) {
                    values[stack] = values[stack].saturating_add(value);
                    sums.total = sums.total.saturating_add(value);
                    if stacks.innermost(leaf) == Some(name) {
                        sums.self_value = sums.self_value.saturating_add(value);
                    }
                }
            }
            sums
        };
        let sums = parts.map(part).collect();
        let mut names = Vec::new();
        for (stack, value) in values.into_iter().enumerate().filter(|(_, value)| *value != 0) {
            stacks.names_to_root(stacks.leaf(stack).unwrap_or_default(), &mut names);
            self.add_calls(stacks, &names, name, value);
        }
        sums
    }

    /// Adds what others of the same function come to.
    pub fn add_all(&mut self, others: &Self) {
        debug_assert_eq!(self.name, others.name);
        note_file(&mut self.file, &others.file);
        for (rows, others) in [(&mut self.callers, &others.callers), (&mut self.callees, &others.callees)] {
            for (name, Growing { file, sums }) in &others.by_name {
                rows.add(name, file, sums);
            }
        }
    }

    fn add_calls(&mut self, stacks: &Stacks<'_>, stack: &[u32], name: u32, value: i128) {
        // For each call of the stack, once: who is at its other end, and whether what was called is the leaf.
        let (mut callers, mut callees) = (Vec::<(u32, bool)>::new(), Vec::<(u32, bool)>::new());
        for (at, pair) in stack.windows(2).enumerate() {
            let (called, caller, is_leaf) = (pair[0], pair[1], at == 0);
            if called == caller {
                continue;
            }
            let (calls, other) = match (called == name, caller == name) {
                (true, _) => (&mut callers, caller),
                (_, true) => (&mut callees, called),
                _ => continue,
            };
            // The leaf is met first, so whether it is one is known when its call is.
            if !calls.iter().any(|(known, _)| *known == other) {
                calls.push((other, is_leaf));
            }
        }
        for (rows, calls) in [(&mut self.callers, callers), (&mut self.callees, callees)] {
            for (other, is_leaf) in calls {
                let (name, file) = stacks.name(other);
                rows.add(name, file, &Sums { self_value: if is_leaf { value } else { 0 }, total: value });
            }
        }
    }

    /// Returns what it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its source file, empty where none is known; the first in the alphabet where there are several.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns how many bytes of memory it holds, about.
    pub fn memory(&self) -> usize {
        self.callers.bytes + self.callees.bytes
    }

    /// Returns the first `limit` direct callers by descending total: what flows from each into the function, and what of that the
    /// function used itself; and how many more there are.
    pub fn callers(&self, limit: usize) -> (Vec<Row>, usize) {
        self.callers.sorted(limit, |sums| (sums.total, sums.self_value))
    }

    /// Returns the first `limit` direct callees by descending total: what flows into each from the function, and what of that it used
    /// itself; and how many more there are.
    pub fn callees(&self, limit: usize) -> (Vec<Row>, usize) {
        self.callees.sorted(limit, |sums| (sums.total, sums.self_value))
    }
}

// === impl Rows ===

impl Rows {
    fn add(&mut self, name: &str, file: &str, sums: &Sums) {
        let row = match self.by_name.get_mut(name) {
            Some(row) => row,
            None => {
                self.bytes += name.len() + file.len() + ENTRY_BYTES;
                self.by_name.entry(name.to_owned()).or_default()
            }
        };
        note_file(&mut row.file, file);
        row.sums.add(sums);
    }

    /// Returns the first `limit` rows by descending `key`, then by name, and how many more there are.
    fn sorted(&self, limit: usize, key: impl Fn(&Sums) -> (i128, i128)) -> (Vec<Row>, usize) {
        let rows = self.by_name.iter().map(|(name, Growing { file, sums })| (&**name, &**file, sums));
        let (rows, truncated, _) = sorted(rows.collect(), Some(limit), key);
        (rows, truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{profile, shown};
    use super::*;

    /// Goal: a call counts once a stack, recursion is no call, and what is used at the end of a call is told.
    #[test]
    fn callers_and_callees_are_those_of_the_calls() {
        let stacks = Stacks::new(&profile(&["cba", "bba", "bcba", "bd", "e"]));
        let mut calls = Calls::new("b");
        let numbers = [0u32, 1, 2, 3, 4];
        let values = [1i128, 10, 100, 1_000, 10_000];
        let parts = [(&numbers[..2], &values[..2]), (&numbers[2..], &values[2..])];
        let sums = calls.add(&stacks, parts.into_iter());
        assert_eq!(sums[0], Sums { self_value: 10, total: 11 });
        assert_eq!(sums[1], Sums { self_value: 1_100, total: 1_100 });
        assert_eq!(shown(&calls.callers(9).0), [("d", 1_000, 1_000), ("a", 0, 111), ("c", 100, 100)]);
        assert_eq!(shown(&calls.callees(9).0), [("c", 1, 101)]);
        let (first, more) = calls.callers(1);
        assert_eq!((first.len(), more), (1, 2));

        let mut twice = Calls::new("b");
        twice.add_all(&calls);
        twice.add_all(&calls);
        assert_eq!(shown(&twice.callers(9).0), [("d", 2_000, 2_000), ("a", 0, 222), ("c", 200, 200)]);
        assert_eq!(shown(&twice.callees(9).0), [("c", 2, 202)]);

        let mut unknown = Calls::new("x");
        assert_eq!(unknown.add(&stacks, parts.into_iter()), [Sums::default(), Sums::default()]);
        assert!(unknown.callers(9).0.is_empty() && unknown.callees(9).0.is_empty());

        // What cancels out over all that was added is no call, wherever it was added.
        let mut undone = Calls::new("b");
        undone.add_all(&calls);
        undone.add(&stacks, [(&numbers[..], &values.map(|value| -value)[..])].into_iter());
        assert!(undone.callers(9).0.is_empty() && undone.callees(9).0.is_empty());
    }
}
