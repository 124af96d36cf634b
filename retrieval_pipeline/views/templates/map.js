"use strict";
// Draws the map of #data: points by WebGL, thumbnails as elements above them. File names only ever
// become text or percent-encoded addresses.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const map = document.getElementById("map");
  const overlay = document.getElementById("overlay");
  const card = document.getElementById("card");
  const controls = document.getElementById("controls");
  const THUMBNAIL = 56; // CSS pixels of the longest edge, and the space that each one takes

  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
  const axes = data.coordinates.map((text) => new Float32Array(bytes(text)));
  const folders = new Uint32Array(bytes(data.folder));
  const codes = {
    cluster: new Uint16Array(bytes(data.cluster)),
    source: new Uint16Array(bytes(data.source)),
  };
  const groups = { cluster: data.clusters, source: data.sources };
  const scores = data.score && new Float32Array(bytes(data.score));
  const thumbnails = new Map(
    data.thumbnailRows.map((row, i) => [row, `data:image/webp;base64,${data.thumbnails[i]}`]),
  );
  const everyRow = Uint32Array.from(data.names, (_, row) => row);
  let rowsOf = []; // for each trace, the rows of its points

  const colourBy = () => controls.elements.colour.value;
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const pick = (values, rows) => Float32Array.from(rows, (row) => values[row]);

  // `paths.to_text` wrote bytes that are not UTF-8 as \xNN and a backslash as two.
  const encoded = (text) =>
    text
      .split(/(\\\\|\\x[0-9a-f]{2})/)
      .map((part, i) => (i % 2 ? (part === "\\\\" ? "%5C" : `%${part.slice(2)}`) : encodeURIComponent(part)))
      .join("");
  const path = (row) => (data.folders[folders[row]] ? `${data.folders[folders[row]]}/` : "") + data.names[row];
  const uri = (row) => `${data.sources[codes.source[row]].uri}/${path(row).split("/").map(encoded).join("/")}`;

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
      dragmode: data.three ? "orbit" : "pan",
      uirevision: "same", // the zoom survives another colouring
      ...(data.three
        ? { scene: { xaxis: axis(0), yaxis: axis(1), zaxis: axis(2) } }
        : { xaxis: axis(0), yaxis: axis(1) }),
    };
  }

  const colourOf = (row) => {
    const kind = colourBy() === "score" ? "cluster" : colourBy();
    return groups[kind][codes[kind][row]].colour;
  };

  const median = (values) => Float32Array.from(values).sort()[values.length >> 1];
  const isHidden = (code) => map.data[code].visible === "legendonly";

  // Returns the names of the clusters as elements over their middles, each below those in its way.
  function names(xaxis, yaxis) {
    if (colourBy() !== "cluster") return [];
    const taken = [];
    return data.clusters.flatMap((cluster, code) => {
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

  function showCard(row, event) {
    const [image, caption] = [card.querySelector("img"), card.querySelector("figcaption")];
    const [name, folder, facts] = caption.children;
    name.textContent = data.names[row];
    folder.textContent = data.folders[folders[row]];
    facts.textContent = [
      data.sources[codes.source[row]].name,
      data.clusters[codes.cluster[row]].name,
      ...(scores ? [`score ${scores[row].toFixed(3)}`] : []),
    ].join(" · ");
    card.dataset.row = row;
    // The thumbnail at once if it is here, the sharp file as soon as it has come.
    if (thumbnails.has(row)) image.src = thumbnails.get(row);
    else image.removeAttribute("src");
    const file = new Image();
    file.onload = () => {
      if (card.dataset.row === String(row)) image.src = file.src;
    };
    file.src = uri(row);
    card.hidden = false;
    const box = map.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    card.style.left = `${x + 20 + card.offsetWidth > box.width ? Math.max(x - 20 - card.offsetWidth, 0) : x + 20}px`;
    card.style.top = `${Math.max(Math.min(y + 12, box.height - 260), 0)}px`;
  }

  function draw() {
    return Plotly.react(map, traces(), layout(), {
      responsive: true,
      scrollZoom: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    });
  }

  const rowAt = ({ points: [point] }) => rowsOf[point.curveNumber][point.pointNumber];
  draw().then(() => {
    map.on("plotly_afterplot", drawOverlay);
    map.on("plotly_relayouting", () => (overlay.style.visibility = "hidden"));
    drawOverlay();
    map.on("plotly_hover", (event) => showCard(rowAt(event), event.event));
    map.on("plotly_unhover", () => (card.hidden = true));
    map.on("plotly_click", (event) => window.open(uri(rowAt(event)), "_blank", "noopener"));
    document.documentElement.dataset.ready = "yes";
  });
  controls.addEventListener("change", (event) => (event.target.name === "colour" ? draw() : drawOverlay()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
