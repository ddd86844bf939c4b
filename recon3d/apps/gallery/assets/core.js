// Elements and data of the page. Text goes into the document as text only, so a name is never markup.
"use strict";

const recon3dGallery = (() => {
  const waiting = new Map(); // key -> what to call with the value
  const values = new Map(); // key -> promise of the value

  /** Called by the data scripts. */
  function receive(key, value) {
    const take = waiting.get(key);
    if (take) take(value);
  }

  /** Load a script once; a promise. Scripts load from file:// where fetch is refused. */
  function loadScript(path) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = path;
      script.onload = () => {
        script.remove(); // meshes are large
        resolve();
      };
      script.onerror = () => reject(new Error(`${path} is missing or cannot be read; build the gallery again.`));
      document.head.append(script);
    });
  }

  /** The value that the script at `path` hands over as `key`; one that is not kept is loaded anew the next time. */
  function load(key, path, keep = true) {
    if (values.has(key)) return values.get(key);
    const value = new Promise((resolve, reject) => {
      waiting.set(key, resolve);
      loadScript(path).catch(reject);
    }).finally(() => waiting.delete(key));
    values.set(key, value); // also while it loads: two that ask get one answer
    value.then(() => keep || values.delete(key), () => values.delete(key));
    return value;
  }

  /** An element with attributes and children; functions become listeners, strings text. */
  function el(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(key, value);
      else element.setAttribute(key, value === true ? "" : String(value));
    }
    element.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
    return element;
  }

  const pathOf = (...parts) => "#/" + parts.map((part) => part.split("/").map(encodeURIComponent).join("/")).join("/");

  function number(value, unit = "1") {
    if (value === null || value === undefined) return "–";
    if (unit === "count") return String(Math.round(value * 100) / 100);
    const digits = unit === "1" && Math.abs(value) < 10 ? 3 : Math.abs(value) < 100 ? 2 : 1;
    return value.toFixed(digits);
  }

  /** A name that may break after its underscores. */
  const name = (text) => text.split(/(?<=[_/-])/).flatMap((part, index) => (index ? [el("wbr"), part] : [part]));

  const arrow = (measure) => (measure.higher ? "↑" : "↓");
  const unit = (measure) => (measure.unit === "1" ? "" : ` [${measure.unit}]`);
  const better = (measure, a, b) => (measure.higher ? b - a : a - b); // for sorting, the best first

  return { receive, load, loadScript, el, pathOf, name, number, arrow, unit, better };
})();
