"use strict";
// Draws a latent map: points by WebGL, thumbnails as elements above them. The pages that show one say
// where its data, thumbnails and pictures are.
//
// data: { axes: [text], coordinates: [Float32Array], codes: { cluster, source }, groups: { cluster,
//   source } as { name, colour } in the order of the codes, scores: Float32Array or null, three }
// parts: { map, overlay, controls } as elements; controls is a form with `colour` and `pictures`
// thumbnails: [row, address] from coarse to fine
// hooks: hover(row, event), leave(), click(row), and select(corners) where a region can be chosen
function latentMap(data, parts, thumbnails, hooks) {
  const { map, overlay, controls } = parts;
  const { groups, codes, coordinates: axes } = data;
  let { scores } = data;

  const THUMBNAIL = 56; // CSS pixels of the longest edge, and the space that each one takes
  // plotly's Viridis.
  const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
  const everyRow = Uint32Array.from(axes[0], (_, row) => row);
  let rowsOf = []; // for each trace, the rows of its points

  const colourBy = () => controls.elements.colour.value;
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const pick = (values, rows) => Float32Array.from(rows, (row) => values[row]);

  function trace(rows, name, marker) {
    const [x, y, z] = axes.map((values) => pick(values, rows));
    return {
      type: data.three ? "scatter3d" : "scattergl",
      mode: "markers",
      x,
      y,
      ...(data.three && { z }),
      name,
      hoverinfo: "none",
      marker: { size: data.three ? 3 : rows.length > 20000 ? 4 : 7, opacity: 0.8, ...marker },
    };
  }

  function traces() {
    const kind = colourBy();
    if (kind === "score") {
      rowsOf = [everyRow];
      const colorbar = { title: { text: "score" }, thickness: 12, len: 0.6, outlinewidth: 0 };
      return [trace(everyRow, "score", { color: scores, colorscale: "Viridis", colorbar })];
    }
    rowsOf = groups[kind].map(() => []);
    codes[kind].forEach((code, row) => rowsOf[code].push(row));
    return groups[kind].map((group, code) =>
      trace(rowsOf[code], `${group.name}  ${rowsOf[code].length.toLocaleString("en")}`, { color: group.colour }),
    );
  }

  function layout() {
    const colour = token("--text");
    const axis = (number) => ({
      title: { text: data.axes[number], font: { size: 12, color: token("--muted") } },
      gridcolor: token("--line"),
      linecolor: token("--line"),
      tickfont: { size: 11, color: token("--muted") },
      zeroline: false,
    });
    const narrow = innerWidth < 700;
    return {
      paper_bgcolor: token("--ground"),
      plot_bgcolor: token("--ground"),
      font: { family: token("--font"), color: colour },
      margin: { l: 56, r: 16, t: 16, b: 48 },
      showlegend: colourBy() !== "score",
      legend: { itemsizing: "constant", ...(narrow && { orientation: "h", y: -0.15 }) },
      hovermode: "closest",
      dragmode: data.three ? "orbit" : (map._fullLayout?.dragmode ?? "pan"),
      uirevision: "same", // the zoom survives another colouring
      ...(data.three
        ? { scene: { xaxis: axis(0), yaxis: axis(1), zaxis: axis(2) } }
        : { xaxis: axis(0), yaxis: axis(1) }),
    };
  }

  // Returns the colour of a point: frames of thumbnails say the same as the points.
  function colourOf(row) {
    const kind = colourBy();
    if (kind !== "score") return groups[kind][codes[kind][row]].colour;
    const [least, most] = range();
    const at = ((scores[row] - least) / (most - least || 1)) * (VIRIDIS.length - 1);
    return VIRIDIS[Math.round(at)];
  }

  const range = () => scores.reduce(([least, most], score) => [Math.min(least, score), Math.max(most, score)], [Infinity, -Infinity]);

  const median = (values) => Float32Array.from(values).sort()[values.length >> 1];
  const isHidden = (code) => map.data[code].visible === "legendonly";

  // Returns the names of the clusters as elements over their middles, each below those in its way.
  function names(xaxis, yaxis) {
    if (colourBy() !== "cluster") return [];
    const taken = [];
    return groups.cluster.flatMap((cluster, code) => {
      if (!rowsOf[code].length || isHidden(code)) return [];
      const width = 8 * cluster.name.length + 20; // CSS pixels, about
      const x = xaxis.l2p(median(pick(axes[0], rowsOf[code])));
      let y = yaxis.l2p(median(pick(axes[1], rowsOf[code])));
      while (taken.some((at) => Math.abs(at.x - x) < (at.width + width) / 2 && Math.abs(at.y - y) < 24)) y += 6;
      taken.push({ x, y, width });
      const name = document.createElement("span");
      name.textContent = cluster.name;
      Object.assign(name.style, { left: `${x}px`, top: `${y}px`, borderColor: cluster.colour });
      return [name];
    });
  }

  // Returns thumbnails as elements, as many as do not overlap. The rows come from coarse to fine:
  // the first of each neighbourhood represents it, and zooming in makes room for the next ones.
  function images(xaxis, yaxis) {
    if (!controls.elements.pictures.checked) return [];
    const taken = new Map();
    const placed = [];
    for (const [row, source] of thumbnails) {
      if (colourBy() !== "score" && isHidden(codes[colourBy()][row])) continue;
      const x = xaxis.l2p(axes[0][row]);
      const y = yaxis.l2p(axes[1][row]);
      if (x < 0 || y < 0 || x > xaxis._length || y > yaxis._length) continue;
      const [column, line] = [Math.floor(x / THUMBNAIL), Math.floor(y / THUMBNAIL)];
      const near = [-1, 0, 1].flatMap((i) => [-1, 0, 1].map((j) => taken.get(`${column + i},${line + j}`)));
      if (near.some((at) => at && Math.abs(at[0] - x) < THUMBNAIL && Math.abs(at[1] - y) < THUMBNAIL)) continue;
      taken.set(`${column},${line}`, [x, y]);
      const image = new Image();
      image.src = source;
      image.alt = "";
      Object.assign(image.style, {
        left: `${x}px`,
        top: `${y}px`,
        maxWidth: `${THUMBNAIL - 4}px`,
        maxHeight: `${THUMBNAIL - 4}px`,
        borderColor: colourOf(row),
      });
      placed.push(image);
    }
    return placed;
  }

  function drawOverlay() {
    if (data.three) return;
    const { xaxis, yaxis } = map._fullLayout;
    overlay.replaceChildren(...images(xaxis, yaxis), ...names(xaxis, yaxis));
    Object.assign(overlay.style, {
      left: `${xaxis._offset}px`,
      top: `${yaxis._offset}px`,
      width: `${xaxis._length}px`,
      height: `${yaxis._length}px`,
      visibility: "visible",
    });
  }

  function draw() {
    return Plotly.react(map, traces(), layout(), {
      responsive: true,
      scrollZoom: true,
      // Its buttons would lie over the legend: the wheel, a drag and a double click do the same.
      displayModeBar: false,
    });
  }

  const rowAt = ({ points: [point] }) => rowsOf[point.curveNumber][point.pointNumber];
  const drawn = draw().then(() => {
    map.on("plotly_afterplot", drawOverlay);
    map.on("plotly_relayouting", () => (overlay.style.visibility = "hidden"));
    drawOverlay();
    map.on("plotly_hover", (event) => hooks.hover(rowAt(event), event.event));
    map.on("plotly_unhover", hooks.leave);
    map.on("plotly_click", (event) => hooks.click(rowAt(event)));
    if (hooks.select) {
      map.on("plotly_selected", (event) => {
        const lasso = event?.lassoPoints;
        if (lasso) hooks.select(lasso.x.map((x, i) => [x, lasso.y[i]]));
      });
    }
    document.documentElement.dataset.ready = "yes";
  });
  controls.addEventListener("change", (event) => (event.target.name === "colour" ? draw() : drawOverlay()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return {
    drawn,
    // Shows other scores.
    setScores(numbers) {
      scores = numbers;
      return draw();
    },
    // Chooses what a drag does: "pan" or "lasso".
    setDrag: (mode) => Plotly.relayout(map, { dragmode: mode }),
  };
}
