// The keyboard: views lay their keys over those below, a dialog covers them.
import { useLayoutEffect, useRef } from "./vendor/htm/standalone.module.js";

const layers = [];
const REPEATING = /arrow|page|home|end/; // a key held down moves on, but decides once

// `keys` maps a key ("enter", "shift+arrowup", "7") to what it does while the component is shown.
export function useKeys(keys, { covers = false } = {}) {
  const layer = useRef({});
  layer.current.keys = keys;
  layer.current.covers = covers;
  useLayoutEffect(() => {
    const own = layer.current;
    layers.push(own);
    return () => layers.splice(layers.indexOf(own), 1);
  }, []);
}

function named(event) {
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  return event.shiftKey && key.length > 1 ? `shift+${key}` : key;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const at = event.target instanceof Element ? event.target : document.body;
  if (at.closest("input, select, textarea")) return;
  const key = named(event);
  // A button that has the focus is pressed by these; it isn't the page's affair.
  if ((key === "enter" || key === "space") && at.closest("button, a, summary")) return;
  for (let i = layers.length - 1; i >= 0; i--) {
    const action = layers[i].keys[key];
    if (action) {
      event.preventDefault();
      if (!event.repeat || REPEATING.test(key)) action(event);
      return;
    }
    if (layers[i].covers) return;
  }
});
