//! Any text as a selector: what it says of itself parses to the same selector.

#![no_main]

use afterglow_profile::{Labels, ProfileType, Selector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(selector) = Selector::parse(text) else { return };
    let said = selector.to_string();
    let again = Selector::parse(&said).expect("a selector says what parses");
    assert_eq!(again.to_string(), said);
    let profile_type = ProfileType::parse("cpu").expect("a word");
    for labels in [vec![("service", "a")], vec![("service", "b"), ("dc", "x\ny")]] {
        let labels = Labels::new(labels).expect("valid labels");
        assert_eq!(selector.matches(&labels, &profile_type), again.matches(&labels, &profile_type));
    }
});
