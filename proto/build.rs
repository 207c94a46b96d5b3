//! Compiles the .proto files with protox, so that nobody needs `protoc`.

#![expect(clippy::disallowed_methods, reason = "cargo talks to build scripts in variables")]

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

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
        .compile_fds(descriptors)?;

    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .extern_path(TIMESTAMP, "crate::Timestamp")
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(["."])
        // An empty list is `[]` and zero is 0: what reads the JSON need not know what may be missing.
        .emit_fields()
        .build(&[".afterglow.v1", ".google.rpc"])?;

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
