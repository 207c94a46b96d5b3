//! Compiles the .proto files with protox, so that nobody needs `protoc`.

#![expect(clippy::disallowed_methods, reason = "cargo talks to build scripts in variables")]

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

const TIMESTAMP: &str = ".google.protobuf.Timestamp";

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "afterglow/v1/types.proto",
        "afterglow/v1/ingest.proto",
        "afterglow/v1/query.proto",
        "afterglow/v1/sibling.proto",
    ];
    println!("cargo:rerun-if-changed=afterglow");
    println!("cargo:rerun-if-changed=google");
    println!("cargo:rerun-if-changed=querier");
    println!("cargo:rerun-if-changed=types");

    let descriptors = protox::compile(files, ["."])?;
    let bytes = descriptors.encode_to_vec();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves exactly what was compiled, comments included.
    std::fs::write(out.join("descriptors.bin"), &bytes)?;

    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .extern_path(TIMESTAMP, "crate::Timestamp")
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_well_known_types(true)
        // Profiles are large: `Bytes` lets tonic hand them on without a copy.
        .bytes(".")
        // Equal messages have equal bytes, in protobuf and in JSON alike.
        .btree_map(".")
        .compile_fds(descriptors.clone())?;

    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .extern_path(TIMESTAMP, "crate::Timestamp")
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(["."])
        // An empty list is `[]` and zero is 0: what reads the JSON need not know what may be missing.
        .emit_fields()
        .build(&[".afterglow.v1", ".google.rpc"])?;
    tell_infinity(&out.join("afterglow.v1.serde.rs"), &descriptors)?;

    // What Grafana asks by. It is answered over HTTP alone, so tonic makes nothing of it, and reflection does not show it.
    let descriptors = protox::compile(["querier/v1/querier.proto"], ["."])?;
    let bytes = descriptors.encode_to_vec();
    tonic_prost_build::configure().build_client(false).build_server(false).bytes(".").compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        // Its clients know fields that we have no use for.
        .ignore_unknown_fields()
        .build(&[".querier.v1", ".types.v1"])?;
    Ok(())
}

/// Has every double of our messages written as [`Double`](src/double.rs): JSON has no infinity, protobuf's mapping says it as a text, and
/// pbjson leaves it to serde, which says `null`.
fn tell_infinity(path: &Path, descriptors: &FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut text = std::fs::read_to_string(path)?;
    let ours = descriptors.file.iter().filter(|file| file.package() == "afterglow.v1");
    for message in ours.flat_map(|file| &file.message_type) {
        for field in message.field.iter().filter(|field| field.r#type() == Type::Double) {
            let name = message.name();
            let start = text.find(&format!("impl serde::Serialize for {name} {{")).ok_or("a message has no serde")?;
            let written = format!("&self.{})?", field.name());
            let at = text[start..].find(&written).ok_or("a double is not written")? + start;
            text.replace_range(at..at + written.len(), &format!("&crate::Double(self.{}))?", field.name()));
        }
    }
    Ok(std::fs::write(path, text)?)
}
