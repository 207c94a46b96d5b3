//! Any text as a name: labels and tenants are refused or kept as they are, and keys lead back to what they were made of.

#![no_main]

use afterglow_fuzz::parts;
use afterglow_profile::{Labels, ProfileType};
use afterglow_store::paths::{BlockKey, SegmentKey, TenantId};
use libfuzzer_sys::fuzz_target;
use object_store::path::Path;

fuzz_target!(|input: &[u8]| {
    let texts: Vec<_> = parts(input, 8).into_iter().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    let pairs = texts.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    if let Ok(labels) = Labels::new(pairs.clone()) {
        assert!(pairs.clone().all(|(name, value)| value.is_empty() || labels.get(name) == Some(value)));
    }
    let anonymous = TenantId::anonymous();
    for text in texts {
        _ = ProfileType::parse(text);
        if let Ok(tenant) = text.parse::<TenantId>() {
            assert_eq!(tenant.as_str(), text);
            let folder = tenant.segments();
            assert!(!folder.prefix_matches(&anonymous.segments()) || tenant == anonymous, "{folder} is another's");
        }
        let Ok(path) = Path::parse(text) else { continue };
        if let Ok(key) = SegmentKey::parse(&anonymous, &path) {
            assert_eq!(key.path(), path);
        }
        if let Ok(key) = BlockKey::parse(&anonymous, &path) {
            assert_eq!(key.path(), path);
        }
    }
});
