import { expect, test } from "vitest";

import { kindOf, type Kind } from "./kinds";

test.each<[Kind, string, string, string]>([
  // Go, with paths and with -trimpath.
  ["own", "example.com/checkout/coupon.pattern", "/home/ci/src/checkout/coupon/pattern.go", "/app/checkout"],
  ["own", "main.main", "/go/src/app/main.go", "/app/app"],
  ["own", "example.com/checkout/coupon.pattern", "example.com/checkout/coupon/pattern.go", "/app/checkout"],
  ["own", "main.main", "./main.go", "/app/checkout"],
  ["library", "regexp.(*Regexp).doOnePass", "/usr/lib/go-1.24/src/regexp/exec.go", "/app/checkout"],
  ["library", "encoding/json.Unmarshal", "/usr/local/go/src/encoding/json/decode.go", "/app/checkout"],
  ["library", "encoding/json.Unmarshal", "encoding/json/decode.go", "/app/checkout"],
  ["library", "github.com/klauspost/compress/zstd.(*Decoder).run", "/root/go/pkg/mod/github.com/klauspost/compress@v1.18.0/zstd/dec.go", ""],
  ["library", "github.com/klauspost/compress/zstd.(*Decoder).run", "github.com/klauspost/compress@v1.18.0/zstd/dec.go", ""],
  ["runtime", "runtime.mallocgc", "/usr/local/go/src/runtime/malloc.go", "/app/checkout"],
  ["runtime", "internal/runtime/maps.(*Map).Get", "internal/runtime/maps/map.go", "/app/checkout"],
  // Rust.
  ["own", "afterglow_store::block::merge", "store/src/block/merge.rs", "/usr/bin/afterglow"],
  ["library", "tokio::runtime::task::poll", "/root/.cargo/registry/src/index/tokio-1.49.0/src/runtime/task/mod.rs", ""],
  ["library", "core::ptr::drop_in_place", "/rustc/abc/library/core/src/ptr/mod.rs", ""],
  ["library", "<alloc::vec::Vec<T> as core::clone::Clone>::clone", "", ""],
  // C, JavaScript, Python, Java's machine.
  ["runtime", "malloc", "", "/lib/x86_64-linux-gnu/libc.so.6"],
  ["library", "SSL_read", "", "/usr/lib/x86_64-linux-gnu/libssl.so.3"],
  ["runtime", "JVM_Compile", "", "/opt/jdk/lib/server/libjvm.so"],
  ["own", "render", "/srv/app/dist/page.js", ""],
  ["library", "parse", "/srv/app/node_modules/acorn/dist/acorn.js", ""],
  ["runtime", "processTicksAndRejections", "node:internal/process/task_queues", ""],
  ["library", "get", "/srv/venv/lib/python3.13/site-packages/requests/api.py", ""],
  ["own", "handle", "/srv/app/views.py", ""],
  // The kernel, and nothing.
  ["kernel", "do_syscall_64", "", "[kernel.kallsyms]"],
  ["kernel", "tcp_sendmsg_[k]", "", ""],
  ["kernel", "[vdso]", "", "[vdso]"],
  ["unknown", "0x7f3a", "", "/app/stripped"],
  ["unknown", "[app]", "", "/app/app"],
])("%s: %s of %s in %s", (kind, name, file, mapping) => {
  expect(kindOf(name, { file, line: 0, mapping })).toBe(kind);
});

test("without an origin the name alone counts", () => {
  expect([kindOf("runtime.gcDrain", undefined), kindOf("app.serve", undefined)]).toEqual(["runtime", "own"]);
});
