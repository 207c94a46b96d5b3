// Texts that would run, or break out of where they are put, on a page that trusts them. Running one sets `window.__executed`.

export const PAYLOADS = [
  `<script>window.__executed=1</script>`,
  `"><img src=x onerror="window.__executed=1">`,
  `'-window.__executed=1-'`,
  "javascript:window.__executed=1",
  `</title><svg onload=window.__executed=1>`,
  `\${window.__executed=1}`,
  `{{constructor.constructor('window.__executed=1')()}}`,
  `<iframe srcdoc="<script>parent.__executed=1</script>">`,
  `<style>*{background:url(http://127.0.0.1:9/leak)}</style>`,
  `<a href="javascript:window.__executed=1" autofocus onfocus=window.__executed=1>x</a>`,
  `<math><mtext></form><form><mglyph><style></math><img src onerror=window.__executed=1>`,
  `\u202egnp.exe <b>&lt;script&gt;</b> %3Cscript%3E`,
];
