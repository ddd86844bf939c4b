// Which page is shown: the address after # says it, so every page has a link. Keys.
"use strict";

(() => {
  const { el, load, pathOf } = recon3dGallery;
  const page = document.getElementById("page"), trail = document.getElementById("trail");
  const seen = new Map(); // address -> where it was scrolled to
  let current = { nodes: [] }, address = null;

  async function find() {
    const parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    const index = await load("index", "data/index.js");
    if (!parts[0]) return recon3dGallery.home(index);
    const key = parts[0], id = parts.slice(1).join("/");
    if (!index.sets.some((set) => set.key === key)) return lost(`There is no data set ${key} in this gallery.`);
    const set = await load(key, `data/${key}/set.js`);
    if (!id) return recon3dGallery.listing(set);
    const sample = set.samples.find((known) => known.id === id);
    return sample ? recon3dGallery.sample(set, sample) : lost(`${key} shows no sample ${id}.`, pathOf(key));
  }

  const lost = (text, up = "#/") => ({
    title: "not found", trail: [], up,
    nodes: [el("h1", { tabindex: "-1" }, "Not found"), el("p", {}, text), el("p", {}, el("a", { href: up }, "Back"))],
  });

  async function show() {
    const asked = location.hash;
    let found;
    try {
      found = await find();
    } catch (error) {
      found = lost(error.message);
    }
    if (asked !== location.hash) return found.close?.(); // gone on meanwhile
    if (address !== null) seen.set(address, { top: scrollY });
    const left = current.id;
    current.close?.();
    current = found;
    document.title = [found.title, "recon3d gallery"].filter(Boolean).join(" · ");
    trail.replaceChildren(...found.trail.map(([text, href], index) =>
      el("a", { href, "aria-current": index === found.trail.length - 1 ? "page" : null }, text)));
    page.replaceChildren(...found.nodes.filter(Boolean));
    const first = address === null, before = seen.get(asked);
    address = asked;
    scrollTo(0, before?.top ?? 0);
    // Back from a sample the focus is on it again.
    const card = [...page.querySelectorAll("[data-id]")].find(({ dataset }) => dataset.id === left);
    if (card) card.focus();
    else if (!first) page.querySelector("h1")?.focus({ preventScroll: true });
  }

  const up = () => current.up ?? (location.hash.length > 2 ? "#/" : null);
  addEventListener("hashchange", show);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target, typing = target.matches?.("input[type=search], select");
    if (event.key === "Escape") {
      if (typing && target.value && target.type === "search") return; // the browser empties it
      if (typing) return target.blur();
      if (up()) location.hash = up();
    } else if (event.key === "/" && !typing) {
      const search = document.getElementById("search");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    } else if (!typing && !target.matches?.("model-viewer, .scroll")) {
      const to = { ArrowLeft: current.previous, ArrowRight: current.next }[event.key];
      if (to) {
        event.preventDefault();
        location.hash = to;
      }
    }
  });
  show();
})();
