//! What `/` says: how to send a first profile, and what can be asked.

use http::HeaderMap;
use http::header::HOST;

/// Where the reader is, when the request does not say it in plain characters.
const HOST_DEFAULT: &str = "127.0.0.1:4200";

/// Writes the page for whoever sent `headers`: addresses in it are the ones they used, so that the lines can be copied.
pub(super) fn page(headers: &HeaderMap) -> String {
    let here =
        headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| is_plain(host)).unwrap_or(HOST_DEFAULT);
    TEXT.replace("{version}", env!("CARGO_PKG_VERSION")).replace("{here}", here).replace("{ingester}", &ingester(here))
}

/// Returns the ingester's address as it is by default: port 4100 of the same host.
fn ingester(here: &str) -> String {
    let name = match here.rsplit_once(':') {
        // The colons of an IPv6 address are not before a port.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => here,
    };
    format!("{name}:4100")
}

fn is_plain(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

const TEXT: &str = r#"Afterglow {version}: continuous profiling that needs a bucket and nothing else.

Send a first profile, to the ingester (by default on port 4100):

    curl --data-binary @cpu.pb.gz 'http://{ingester}/api/v1/profiles?service=my-app&type=cpu'
    afterglow push cpu.pb.gz --service my-app --type cpu --server http://{ingester}

Ask for it, here:

    go tool pprof 'http://{here}/api/v1/merge?query={service="my-app"}&type=cpu&start=-1h'
    curl -G http://{here}/api/v1/profiles --data-urlencode 'query={service="my-app"}'
    afterglow search '{service="my-app"}' --server http://{here}

All questions, by GET:

    /api/v1/profiles            lists profiles, newest first: limit (100), cursor (the nextCursor of the page before)
    /api/v1/profiles/ID         one profile, gzip'd; with raw=true the very bytes that were sent
    /api/v1/merge               all selected profiles as one: format=pprof|flamegraph|top|folded|dot, sample_type, limit;
                                focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site;
                                view=callers|callees of function; ids instead of a window
    /api/v1/diff                the same against base_query, base_start, base_end: normalize, mark_base
    /api/v1/series              sums over time: step, by (labels, comma separated), function, value=total|self, sample_type, limit
    /api/v1/top                 functions, ranked: by (labels), function (a regular expression), sample_type, limit (50; 0 is all),
                                and focus to call_site
    /api/v1/function            one function: name, by (service), step, sample_type, limit of callers and callees (20)
    /api/v1/regressions         functions that changed beyond noise, against base_query, base_start, base_end (the window before): value=total|self,
                                min_change (0.05), min_share (0.005), alarm_chance (0.05), all, sample_type, limit (50)
    /api/v1/statistics          how shares of functions spread over groups, and which are odd: by (labels), step, value=total|self, function,
                                min_share (0.005), sample_type, limit (50), and focus to call_site
    /api/v1/stats               what is stored
    /api/v1/types               the profile types
    /api/v1/services            the services, and the profile types of each
    /api/v1/labels              the names of labels
    /api/v1/labels/NAME/values  the values of a label

Which profiles they are about, the same for all:

    query       {service="api", dc=~"eu-.*", version!="1.4"}; everything when left out
    type        cpu, heap, allocs, goroutine, mutex, block ...; any when left out
    start, end  2026-11-24T22:40:00Z, unix seconds to nanoseconds, -1h, now; the last hour when left out
    explain     true: search, merge, diff, series, top, function, regressions and statistics say what the answer cost; beside files in the header
                x-afterglow-explain
    read_token  from the answer to a push: reads at least what was stored when it was given

The same by gRPC on this port: grpcurl -plaintext {here} describe afterglow.v1.QueryService
In Grafana: a data source of the type Pyroscope with the URL http://{here}
The state of this server: /healthz /readyz /metrics /version /debug/pprof/profile /debug/pprof/heap
"#;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn page_at(host: &'static str) -> String {
        page(&HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]))
    }

    #[test]
    fn addresses_are_those_of_the_reader() {
        let text = page_at("profiles.example.com:8080");
        assert!(text.contains("http://profiles.example.com:8080/api/v1/merge"));
        assert!(text.contains("http://profiles.example.com:4100/api/v1/profiles"));
        assert!(page_at("[::1]:4200").contains("http://[::1]:4100/api"));
        assert!(page_at("[::1]").contains("http://[::1]:4100/api"));
        assert!(page_at("localhost").contains("http://localhost:4100/api"));
    }

    #[test]
    fn a_host_that_is_none_is_not_repeated() {
        assert!(page_at("<script>").contains("http://127.0.0.1:4200/api/v1/merge"));
        assert!(page(&HeaderMap::new()).contains("http://127.0.0.1:4100/api/v1/profiles"));
    }
}
