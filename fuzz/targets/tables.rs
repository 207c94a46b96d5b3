//! Any bytes as the parts of a block: the table of contents, the symbol tables, the columns of a chunk, filters of functions.

#![no_main]

use afterglow_fuzz::parts;
use afterglow_store::testing::readers::{self, TABLE_FRAMES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    let owned = |part: &&[u8]| part.to_vec();
    // The last kind of all has the filters, so that what others say stays as it is.
    if kind == u8::MAX {
        _ = readers::filters(rest.to_vec(), 2);
        return;
    }
    match kind % 3 {
        0 => _ = readers::table_of_contents(rest, u32::from(kind / 3 % 6)),
        1 => {
            let parts = parts(rest, TABLE_FRAMES);
            let frame = |i: usize| parts.get(i).map(owned).unwrap_or_default();
            _ = readers::tables(&std::array::from_fn(frame), u32::from(kind / 3 % 6));
        }
        _ => {
            let parts: Vec<_> = parts(rest, 8).iter().map(owned).collect();
            if let [stacks, labels, meta, values @ ..] = &parts[..] {
                let profiles = usize::from(kind / 3);
                _ = readers::columns(profiles, stacks.clone(), labels.clone(), values.to_vec(), meta.clone());
            }
        }
    }
});
