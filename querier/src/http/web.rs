//! The web UI: files that `build.rs` embedded, served from memory under the names they were built with.
//!
//! Every page of the UI is the one `index.html`, which reads the path itself; so its paths are listed here. Files under `/assets/`
//! carry a digest in their names and are kept by browsers for ever; all others are asked for again, by their ETag. `/` is text for whoever
//! does not ask for HTML, such as curl. The headers that bind a browser (Content-Security-Policy, nosniff, no-referrer) are those of
//! every answer, set by `afterglow_service`.
//!
//! A build without Node embeds nothing: then the pages say how to build the UI.

use afterglow_service::http as answers;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

use super::help;

/// A built file: its path on the server and what it holds.
struct Asset {
    path: &'static str,
    bytes: &'static [u8],
}

/// What was built.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/web.rs"));

/// The file that is every page.
const INDEX: &str = "/index.html";

/// The paths of the UI's pages beside `/`; `web/src/views/app.tsx` has the same.
const PAGES: [&str; 6] = ["/explore", "/compare", "/statistics", "/function", "/profile", "/file"];

/// The folder of files whose names change with their bytes.
const DIGESTED: &str = "/assets/";

/// What a build without the UI shows to browsers.
const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><title>Afterglow</title></head>
<body>
<h1>Afterglow</h1>
<p>This server was built without its web UI. With Node installed, from the sources:</p>
<pre>make web
cargo build --bin afterglow</pre>
<p>All questions are answered without it: <a href=\"/?text\">by curl, go tool pprof and the command line</a>.</p>
</body>
</html>
";

/// Makes the routes of the UI.
pub(crate) fn router() -> Router {
    let mut router = Router::new().route("/", get(root));
    for page in PAGES {
        router = router.route(page, get(|headers: HeaderMap| async move { page_of(ASSETS, &headers) }));
    }
    for asset in ASSETS.iter().filter(|asset| asset.path != INDEX) {
        router = router.route(asset.path, get(move |headers: HeaderMap| async move { file(asset, &headers) }));
    }
    router
}

async fn root(headers: HeaderMap, uri: http::Uri) -> Response {
    let mut response = if uri.query() != Some("text") && answers::is_browser(&headers) {
        page_of(ASSETS, &headers)
    } else {
        help::page(&headers).into_response()
    };
    response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    response
}

/// Answers with the page that all pages are, or with how to build it.
fn page_of(assets: &[Asset], headers: &HeaderMap) -> Response {
    match assets.iter().find(|asset| asset.path == INDEX) {
        Some(index) => file(index, headers),
        None => ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")], NOT_BUILT).into_response(),
    }
}

/// Answers with a file, or without its bytes where the client has them.
fn file(asset: &Asset, headers: &HeaderMap) -> Response {
    // Weak: compressed for the way or not, it is the same file.
    let tag = format!("W/\"{:032x}\"", xxh3_128(asset.bytes));
    let caching = if asset.path.starts_with(DIGESTED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let is_known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|known| known.trim() == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, content_type(asset.path))], Body::from(asset.bytes)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::try_from(tag).expect("hexadecimal digits and quotes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

/// Returns the content type of a file by its name. Browsers may not guess, so what has none here would not be shown.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    const BUILT: [Asset; 2] =
        [Asset { path: INDEX, bytes: b"<!doctype html>" }, Asset { path: "/assets/index-1a2b.js", bytes: b"let a" }];

    fn header(response: &Response, name: http::HeaderName) -> &str {
        response.headers()[name].to_str().unwrap()
    }

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn pages_are_asked_for_again_and_assets_kept() {
        let page = page_of(&BUILT, &HeaderMap::new());
        assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8");
        assert_eq!(header(&page, CACHE_CONTROL), "no-cache");
        let script = file(&BUILT[1], &HeaderMap::new());
        assert_eq!(header(&script, CONTENT_TYPE), "text/javascript; charset=utf-8");
        assert_eq!(header(&script, CACHE_CONTROL), "public, max-age=31536000, immutable");
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let tag = header(&file(&BUILT[0], &HeaderMap::new()), ETAG).to_owned();
        assert_eq!(file(&BUILT[0], &headers(IF_NONE_MATCH, &tag)).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(
            file(&BUILT[0], &headers(IF_NONE_MATCH, &format!("\"x\", {tag}"))).status(),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(file(&BUILT[1], &headers(IF_NONE_MATCH, &tag)).status(), StatusCode::OK);
    }

    #[test]
    fn a_build_without_the_ui_says_how_to_build_it() {
        let page = page_of(&[], &HeaderMap::new());
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8");
        assert!(NOT_BUILT.contains("make web"));
    }

    #[tokio::test]
    async fn the_root_is_a_page_for_browsers_and_text_for_tools() {
        let root = async |accept: &str, uri: &str| root(headers(ACCEPT, accept), uri.parse().unwrap()).await;
        let browser = root("text/html,application/xhtml+xml,*/*;q=0.8", "/").await;
        assert_eq!(header(&browser, CONTENT_TYPE), "text/html; charset=utf-8");
        assert_eq!(header(&browser, VARY), "accept");
        assert_eq!(header(&root("*/*", "/").await, CONTENT_TYPE), "text/plain; charset=utf-8");
        assert_eq!(header(&root("text/html", "/?text").await, CONTENT_TYPE), "text/plain; charset=utf-8");
    }
}
