//! Whether a server is ready follows whether its store is there, without anybody sending or asking.

#![allow(clippy::disallowed_methods, reason = "a test waits for programs that cannot wake it")]

use std::process::Command;
use std::time::{Duration, Instant};

use afterglow_e2e::{MinIo, Program, output, tool};

/// How long a server may take to notice: three checks that are not answered, and one that is due.
const NOTICED_MAX: Duration = Duration::from_secs(60);

/// Waits until `/readyz` answers with a status, and returns what it says.
fn wait_for(server: &Program, status: u16) -> String {
    let start = Instant::now();
    loop {
        let (found, body) = server.get("/readyz");
        if found == status {
            return body;
        }
        assert!(start.elapsed() < NOTICED_MAX, "/readyz is {found} after {NOTICED_MAX:?}: {body}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Asks grpc.health.v1, as Kubernetes and gRPC's load balancers do.
fn grpc_health(server: &Program) -> String {
    let mut grpcurl = Command::new(tool("grpcurl"));
    grpcurl.args(["-plaintext", &server.address(), "grpc.health.v1.Health/Check"]);
    String::from_utf8(output(grpcurl).stdout).expect("text")
}

/// A store that is silent is gone, and one that answers again is back: for each tier, though nothing is pushed or asked.
#[test]
fn a_server_is_ready_while_its_store_answers() {
    let minio = MinIo::start();
    let storage = minio.bucket("health");
    let servers = ["afterglow-ingester", "afterglow-querier"]
        .map(|name| Program::start(name, &["--storage", &storage], &minio.env()));
    for server in &servers {
        wait_for(server, 200);
    }
    minio.pause();
    for server in &servers {
        assert_eq!(wait_for(server, 503), "storage: the object store failed 3 checks in a row\n");
        assert!(grpc_health(server).contains("NOT_SERVING"), "{}", grpc_health(server));
        assert_eq!(server.get("/healthz").0, 200, "it is alive all the same");
    }
    minio.resume();
    for server in &servers {
        wait_for(server, 200);
        assert!(grpc_health(server).contains("\"SERVING\""), "{}", grpc_health(server));
    }
}
