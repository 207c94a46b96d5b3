//! Which environment variables with our prefix may be set: those of any program, for one environment often serves several.

use super::name;

/// The variables of all programs' settings, a line each; a test of the root program writes and checks it.
const SETTINGS: &str = include_str!("variables.txt");

/// Those that are no settings: of the build, of tests, and switches of the command line.
const OTHERS: [&str; 3] = ["AFTERGLOW_REVISION", "AFTERGLOW_RENEW", "AFTERGLOW_MODEL"];

/// Tests have more.
const OF_TESTS: &str = "AFTERGLOW_TEST_";

const PREFIX: &str = "AFTERGLOW_";

/// Returns what is wrong with a variable: that it is ours by its name and nobody knows it.
pub(super) fn problem<'a>(variable: &str, value: &str, own: impl Iterator<Item = &'a str>) -> Option<String> {
    if !variable.starts_with(PREFIX) || variable.starts_with(OF_TESTS) || is_of_kubernetes(variable, value) {
        return None;
    }
    let own: Vec<String> = own.map(name::environment).collect();
    let known = || own.iter().map(String::as_str).chain(SETTINGS.lines()).chain(OTHERS);
    if known().any(|known| known == variable) {
        return None;
    }
    let hint = name::nearest(variable, known()).map(|near| format!(", did you mean {near}?"));
    Some(format!("{variable}: no setting has this variable{}", hint.unwrap_or_default()))
}

/// Kubernetes tells each pod of the services beside it by variables (`AFTERGLOW_SERVICE_HOST`, `AFTERGLOW_PORT_4100_TCP_ADDR`), and a
/// service is likely to bear our name.
fn is_of_kubernetes(variable: &str, value: &str) -> bool {
    let is_address = value.starts_with("tcp://") || value.starts_with("udp://");
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && is_address)
        || variable.split_once("_PORT_").is_some_and(|(_, rest)| rest.contains("TCP") || rest.contains("UDP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(variable: &str, value: &str) -> Option<String> {
        problem(variable, value, ["storage", "limits.max-body"].into_iter())
    }

    #[test]
    fn a_variable_that_nobody_knows_is_refused_with_what_was_meant() {
        assert_eq!(
            problem_of("AFTERGLOW_LIMIT_MAX_BODY", "1MiB").as_deref(),
            Some("AFTERGLOW_LIMIT_MAX_BODY: no setting has this variable, did you mean AFTERGLOW_LIMITS_MAX_BODY?")
        );
        assert_eq!(
            problem_of("AFTERGLOW_COLOUR_OF_THE_SKY", "").as_deref(),
            Some("AFTERGLOW_COLOUR_OF_THE_SKY: no setting has this variable")
        );
    }

    #[test]
    fn what_others_set_is_let_be() {
        for (variable, value) in [
            ("PATH", "/bin"),
            ("AFTERGLOW_STORAGE", "memory://"),
            ("AFTERGLOW_QUERY_TIMEOUT", "30s"),
            ("AFTERGLOW_TEST_PROFILES", "/profiles"),
            ("AFTERGLOW_REVISION", "0123456"),
            ("AFTERGLOW_SERVICE_HOST", "10.0.0.1"),
            ("AFTERGLOW_INGESTER_SERVICE_PORT_GRPC", "4100"),
            ("AFTERGLOW_PORT", "tcp://10.0.0.1:4100"),
            ("AFTERGLOW_PORT_4100_TCP_ADDR", "10.0.0.1"),
        ] {
            assert_eq!(problem_of(variable, value), None, "{variable}");
        }
    }
}
