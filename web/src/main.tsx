// Puts the application on the page.

import "uplot/dist/uPlot.min.css";
import "./views/style.css";

import { createRoot } from "react-dom/client";

import { App } from "./views/app";

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(<App />);
