// 3D viewers: one tile per mesh, a preview until it is loaded or where there is no WebGL, cameras that turn together.
"use strict";

recon3dGallery.viewers = (() => {
  const { el, load, loadScript } = recon3dGallery;
  let component = null;

  const supported = () => {
    try {
      return document.createElement("canvas").getContext("webgl2") !== null;
    } catch {
      return false;
    }
  };
  const webgl = supported();

  function whenDefined() {
    component ??= loadScript("model-viewer/model-viewer-umd.min.js");
    return component;
  }

  /** The GLB of a script as a Blob: base64 of gzip. */
  async function mesh(key) {
    const packed = Uint8Array.from(atob(await load(key, `data/${key}.js`, false)), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Blob([await new Response(stream).arrayBuffer()], { type: "model/gltf-binary" });
  }

  /** The viewers of one sample; `close` frees what they hold. */
  function open(orbit) {
    const viewers = [], urls = [];
    // The height of the input image is 2 units of the viewer, see `scale`.
    const far = 1 / Math.tan((orbit.field / 2) * (Math.PI / 180));
    let together = true, zoom = 1, last = Promise.resolve();
    const distance = () => `${far / zoom}m`;
    const start = () => `0deg ${orbit.polar}deg ${distance()}`;
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        observer.unobserve(entry.target);
        entry.target.activate();
      }
    }, { rootMargin: "300px" });

    function follow(source, others) {
      const { theta, phi } = source.getCameraOrbit();
      for (const other of others) {
        other.cameraOrbit = `${theta}rad ${phi}rad ${distance()}`;
        other.jumpCameraToGoal();
      }
    }

    async function show(stage, key, model, label) {
      const [blob] = await Promise.all([mesh(key), whenDefined()]);
      if (!stage.isConnected) return; // another page by now
      const url = URL.createObjectURL(blob);
      urls.push(url);
      const field = `${orbit.field}deg`, first = viewers[0];
      let loaded;
      const done = new Promise((resolve) => { loaded = resolve; });
      const viewer = el("model-viewer", {
        src: url, alt: `${label}, turn with the arrow keys`, "camera-controls": true, "disable-zoom": true,
        "disable-pan": true, "disable-tap": true, "touch-action": "pan-y", "interaction-prompt": "none",
        "camera-orbit": start(), "min-camera-orbit": "auto 0deg 0.1m", "max-camera-orbit": "auto 180deg 999m",
        "field-of-view": field, "min-field-of-view": field, "max-field-of-view": field,
        "camera-target": "0m 0m 0m", orientation: model.orientation.map((angle) => `${angle}deg`).join(" "),
        scale: `${model.scale} ${model.scale} ${model.scale}`, "interpolation-decay": 60, "shadow-intensity": 0,
        "environment-image": "legacy", exposure: model.texture ? 1 : 0.6, "tone-mapping": "neutral", loading: "eager",
        load: () => {
          if (together && first?.loaded) follow(first, [viewer]);
          stage.classList.add("ready");
          loaded();
        },
        error: () => {
          fail(stage, "The viewer cannot read this mesh.");
          loaded();
        },
        "camera-change": (event) => {
          if (together && event.detail.source === "user-interaction") {
            follow(viewer, viewers.filter((other) => other !== viewer));
          }
        },
      });
      viewers.push(viewer);
      stage.append(viewer);
      return done;
    }

    const fail = (stage, text) => stage.append(el("p", { class: "failure", role: "alert" }, text));

    /** A tile's stage: the preview, then the viewer when it comes into sight. */
    function stage(key, model, label) {
      const box = el("div", { class: "stage" },
        el("img", { class: "poster", src: `data/${key}.png`, alt: `${label}, input view` }));
      if (webgl) {
        // One after the other: the page stays alive, and the first tiles are there first.
        box.activate = () => {
          last = last.then(() => show(box, key, model, label)).catch((error) => fail(box, error.message));
        };
        observer.observe(box);
      }
      return box;
    }

    return {
      stage,
      setTogether(value) {
        together = value;
        if (together && viewers.length) follow(viewers[0], viewers.slice(1));
      },
      zoomBy(factor) {
        zoom = Math.min(4, Math.max(0.25, zoom * factor));
        for (const viewer of viewers) {
          const { theta, phi } = viewer.getCameraOrbit();
          viewer.cameraOrbit = `${theta}rad ${phi}rad ${distance()}`;
        }
      },
      reset() {
        zoom = 1;
        for (const viewer of viewers) {
          viewer.cameraOrbit = start();
          viewer.jumpCameraToGoal();
        }
      },
      close() {
        observer.disconnect();
        urls.forEach((url) => URL.revokeObjectURL(url));
      },
    };
  }

  return { open, mesh, webgl };
})();
