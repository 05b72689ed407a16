// The pile in two dimensions: photographs that look alike lie together. A lasso selects.
import { html, useEffect, useRef, useState } from "./vendor/htm/standalone.module.js";
import { Frame } from "./frame.js";
import { useKeys } from "./keys.js";
import { Key, count, many, noveltyWords, percent } from "./parts.js";
import { address } from "./pictures.js";
import { ask, patiently } from "./server.js";

const KEYS = [
  ["l", "lasso: draw around photographs"],
  ["v", "move and zoom: drag and wheel"],
  ["← ↑ → ↓", "move the circle"],
  ["+ −", "a wider or narrower circle"],
  ["Space", "select what the circle holds"],
  ["Escape", "select nothing"],
  ["Enter", "show the selected in the grid"],
  ["?", "these keys"],
];
const SERIES = 8; // colours that differ; the ninth class on shares the last
const STEPS = [0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0001]; // of confidence
const FAR = [0, 0.6, 0.8, 1, 1.25, 1.5, Infinity]; // of novelty, above 1 novel

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const between = (text, i, n) => {
  const share = n === 1 ? 1 : i / (n - 1);
  return `color-mix(in oklab, ${variable(`--${text}-high`)} ${Math.round(100 * share)}%, ${variable(`--${text}-low`)})`;
};
// A canvas wants a colour that is worked out.
function asRgb(colour) {
  const probe = document.createElement("span");
  probe.style.color = colour;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return `rgb(${r}, ${g}, ${b})`;
}

// Points by what colours them: [{name, colour, members: indices into points}], none of them empty.
function groupsOf(map, by) {
  const { points, labels } = map;
  let groups;
  if (by === "label") {
    const sizes = labels.map((_, i) => points.label.filter((label) => label === i).length);
    const order = labels.map((_, i) => i).sort((a, b) => sizes[b] - sizes[a]);
    const place = new Map(order.map((label, i) => [label, Math.min(i, SERIES - 1)]));
    const hasOthers = labels.length > SERIES;
    groups = Array.from({ length: Math.min(SERIES, labels.length) }, (_, i) => ({
      name: hasOthers && i === SERIES - 1 ? `${labels.length - SERIES + 1} other classes` : labels[order[i]],
      colour: asRgb(`var(--series-${i + 1})`),
      members: [],
    }));
    points.label.forEach((label, i) => groups[place.get(label)]?.members.push(i));
  } else {
    const edges = by === "confidence" ? STEPS : FAR;
    const named = (low, high) =>
      by === "confidence"
        ? high > 1
          ? `${percent(low)} and more`
          : low === 0 ? `below ${percent(high)}` : `${percent(low)} to ${percent(high)}`
        : high === Infinity
          ? `above ${low}`
          : `${low} to ${high}`;
    groups = edges.slice(1).map((high, i) => ({
      name: named(edges[i], high),
      colour: asRgb(between(by, i, edges.length - 1)),
      members: [],
    }));
    const unknown = { name: "not known", colour: asRgb("var(--soft)"), members: [] };
    points[by].forEach((value, i) => {
      const at = edges.findIndex((low, k) => value >= low && value < edges[k + 1]);
      (value === null ? unknown : groups[at])?.members.push(i);
    });
    groups.push(unknown);
  }
  return groups.filter(({ members }) => members.length);
}

export function PileMap({ session }) {
  const [map, setMap] = useState(null);
  const [by, setBy] = useState("label");
  const [tool, setTool] = useState("lasso");
  const [selected, setSelected] = useState([]); // indices into points
  const [hovered, setHovered] = useState(null);
  const [circle, setCircle] = useState(null); // {x, y, r} in pixels, once keys move it
  const [scheme, setScheme] = useState(0); // counts the changes from light to dark
  const place = useRef();
  const chart = useRef();
  const groups = useRef([]);

  useEffect(() => {
    let isShown = true;
    const look = async () => {
      let now = await patiently("api/map", null, () => !isShown);
      if (now?.state === "none") now = await ask("api/map", {});
      while (isShown && now) {
        if (now.state === "ready" && !now.points) now = await patiently("api/map", null, () => !isShown);
        if (!isShown || !now) return;
        setMap(now);
        if (now.state === "ready" || now.state === "impossible" || now.state === "failed") return;
        await new Promise((done) => setTimeout(done, 700));
        now = await patiently("api/map", null, () => !isShown);
      }
    };
    look().catch((failure) => session.complain(failure.message));
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setScheme((n) => n + 1);
    dark.addEventListener("change", changed);
    return () => {
      isShown = false;
      dark.removeEventListener("change", changed);
      chart.current?.dispose();
    };
  }, []);

  const isReady = map?.state === "ready" && map.points;
  const lasso = () =>
    chart.current?.dispatchAction({
      type: "takeGlobalCursor",
      key: "brush",
      brushOption: tool === "lasso" ? { brushType: "polygon", brushMode: "single" } : { brushType: false },
    });

  useEffect(() => {
    if (!isReady) return;
    let isShown = true;
    const draw = async () => {
      const echarts = await import("./vendor/echarts/echarts.esm.min.js");
      if (!isShown) return;
      if (!chart.current) {
        const made = echarts.init(place.current, null, { renderer: "canvas" });
        chart.current = made;
        made.on("brushselected", ({ batch }) => {
          if (!batch?.[0]?.areas?.length) return;
          setCircle(null);
          setSelected(batch[0].selected.flatMap(({ seriesIndex, dataIndex }) => dataIndex.map((i) => groups.current[seriesIndex].members[i])));
        });
        made.on("mouseover", ({ seriesIndex, dataIndex }) => setHovered(groups.current[seriesIndex]?.members[dataIndex] ?? null));
      }
      groups.current = groupsOf(map, by);
      const { x, y } = map.points;
      const size = Math.max(3, Math.min(8, 400 / Math.sqrt(x.length)));
      // The margin lies within the axes, so that a lasso may begin anywhere.
      const axis = { type: "value", show: false, scale: true, boundaryGap: ["4%", "4%"] };
      chart.current.setOption(
        {
          animation: false,
          grid: { left: 0, right: 0, top: 0, bottom: 0 },
          xAxis: axis,
          yAxis: axis,
          dataZoom: [
            { type: "inside", xAxisIndex: 0, filterMode: "none" },
            { type: "inside", yAxisIndex: 0, filterMode: "none" },
          ],
          toolbox: { show: false },
          brush: {
            toolbox: [],
            xAxisIndex: 0,
            throttleType: "debounce",
            throttleDelay: 80,
            brushStyle: { borderWidth: 2, color: "rgba(120,140,160,.18)", borderColor: asRgb("var(--focus)") },
            outOfBrush: { colorAlpha: 0.25 },
          },
          series: groups.current.map(({ name, colour, members }) => ({
            type: "scatter",
            name,
            itemStyle: { color: colour, opacity: 0.8 },
            symbolSize: size,
            data: members.map((i) => [x[i], y[i]]),
          })),
        },
        { notMerge: true },
      );
      lasso();
      redraw((n) => n + 1);
    };
    draw();
    const watch = new ResizeObserver(() => chart.current?.resize());
    watch.observe(place.current);
    return () => {
      isShown = false;
      watch.disconnect();
    };
  }, [isReady, by, scheme]);
  useEffect(lasso, [tool]);
  const [, redraw] = useState(0);

  const clear = () => {
    chart.current?.dispatchAction({ type: "brush", areas: [] });
    setCircle(null);
    setSelected([]);
  };
  const show = () => {
    if (!selected.length) return session.say("Nothing is selected on the map.");
    session.select(selected.map((i) => map.points.id[i]));
  };

  // The keyboard's lasso: a circle that the arrows move.
  const within = ({ x, y, r }) => {
    const { points } = map;
    const held = [];
    for (let i = 0; i < points.x.length; i++) {
      const [px, py] = chart.current.convertToPixel("grid", [points.x[i], points.y[i]]);
      if (Math.hypot(px - x, py - y) <= r) held.push(i);
    }
    return held;
  };
  const middle = () => ({ x: place.current.clientWidth / 2, y: place.current.clientHeight / 2, r: 40 });
  const nudge = (dx, dy, wider = 1) => () => {
    const from = circle ?? middle();
    const to = {
      x: Math.max(0, Math.min(place.current.clientWidth, from.x + dx)),
      y: Math.max(0, Math.min(place.current.clientHeight, from.y + dy)),
      r: Math.max(8, Math.min(400, from.r * wider)),
    };
    setCircle(to);
    session.say(many(within(to).length, "photograph") + " in the circle");
  };
  useKeys({
    l: () => setTool("lasso"),
    v: () => setTool("move"),
    escape: clear,
    enter: show,
    ...(isReady && {
      arrowleft: nudge(-20, 0),
      arrowright: nudge(20, 0),
      arrowup: nudge(0, -20),
      arrowdown: nudge(0, 20),
      "+": nudge(0, 0, 1.25),
      "=": nudge(0, 0, 1.25),
      "-": nudge(0, 0, 0.8),
      space: () => {
        chart.current?.dispatchAction({ type: "brush", areas: [] });
        const held = within(circle ?? middle());
        setCircle(circle ?? middle());
        setSelected(held);
        session.say(`${many(held.length, "photograph")} selected`);
      },
    }),
  });

  const preview = hovered ?? selected[0] ?? null;
  const mode = (name, text) => html`<label class="radio">
    <input type="radio" name="colour" checked=${by === name} onChange=${() => setBy(name)} onClick=${(event) => event.currentTarget.blur()} />${text}
  </label>`;
  return html`<${Frame} session=${session} title="Map of the pile" keys=${KEYS} className="fixed mapped">
    <div class="toolbar">
      <h1 class="hidden-words">Map of the pile</h1>
      <fieldset class="row">
        <legend>Colour</legend>
        ${mode("label", "label")} ${mode("confidence", "confidence")} ${mode("novelty", "novelty")}
      </fieldset>
      <div class="row" role="group" aria-label="Tool">
        <button type="button" aria-pressed=${String(tool === "lasso")} onClick=${() => setTool("lasso")}><${Key}>l<//>Lasso</button>
        <button type="button" aria-pressed=${String(tool === "move")} onClick=${() => setTool("move")}><${Key}>v<//>Move</button>
      </div>
      <span class="space"></span>
      <button type="button" disabled=${!selected.length} onClick=${clear}>Clear</button>
      <button type="button" class="main-button" disabled=${!selected.length} onClick=${show}>
        ${selected.length ? `Show these ${count(selected.length)} in the grid` : "None selected"}
      </button>
    </div>
    ${isReady
      ? html`<div class="map">
          <div class="canvas">
            <div ref=${place} class="plot" role="img" aria-label=${`Map of ${many(map.points.id.length, "photograph")}, coloured by ${by}. The arrow keys move a circle, space selects what it holds.`}></div>
            ${circle && html`<div class="circle" style=${{ left: `${circle.x - circle.r}px`, top: `${circle.y - circle.r}px`, width: `${2 * circle.r}px`, height: `${2 * circle.r}px` }}></div>`}
          </div>
          <aside class="legend-card">
            <ul class="legend" aria-label=${`Colours: ${by}`}>
              ${groups.current.map(({ name, colour, members }) => html`<li key=${name}>
                <span class="swatch" style=${{ background: colour }}></span><bdi>${name}</bdi>
                <span class="soft">${count(members.length)}</span>
              </li>`)}
            </ul>
            ${preview !== null && html`<figure class="preview">
              <img src=${address(map.points.id[preview], 256)} alt="" />
              <figcaption>
                <bdi>${map.labels[map.points.label[preview]]}</bdi> ${percent(map.points.confidence[preview])}
                ${noveltyWords(map.points.novelty[preview]) && html`<br /><span class="novel-words">${noveltyWords(map.points.novelty[preview])}</span>`}
              </figcaption>
            </figure>`}
            <p class="note">${map.points.id.length < map.of ? `${count(map.points.id.length)} of ${many(map.of, "photograph")}, drawn by chance. ` : ""}Photographs that look alike lie together; the axes mean nothing.</p>
          </aside>
        </div>`
      : html`<p class="opening" role="status">${map?.line || "Asking for the map …"}</p>`}
  <//>`;
}
