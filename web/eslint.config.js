// What the compiler does not catch: promises left alone, wrong dependencies of hooks, and any way to turn data into markup or code.
import js from "@eslint/js";
import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "dist-bench", "node_modules", "eslint.config.js", "bench/run.mjs", "bench/others"] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  { languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } } },
  {
    plugins: { "react-hooks": hooks },
    rules: {
      "react-hooks/rules-of-hooks": "error",
      "react-hooks/exhaustive-deps": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // A name in a profile is anybody's text: React's escaping is the only way to the page.
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "names are anybody's text; use textContent or JSX" },
        { property: "outerHTML", message: "names are anybody's text; use textContent or JSX" },
        { property: "insertAdjacentHTML", message: "names are anybody's text; use textContent or JSX" },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "names are anybody's text" },
      ],
      "no-eval": "error",
      "no-implied-eval": "error",
    },
  },
);
