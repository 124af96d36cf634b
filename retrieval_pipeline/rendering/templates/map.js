"use strict";
// The map of #data, in a page of its own. File names only ever become text or percent-encoded
// addresses.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const map = document.getElementById("map");
  const card = document.getElementById("card");

  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
  const folders = new Uint32Array(bytes(data.folder));
  const codes = {
    cluster: new Uint16Array(bytes(data.cluster)),
    source: new Uint16Array(bytes(data.source)),
  };
  const groups = { cluster: data.clusters, source: data.sources };
  for (const [kind, fact] of Object.entries(data.facts)) {
    codes[kind] = new Uint16Array(bytes(fact.codes));
    groups[kind] = fact.groups;
  }
  const scores = data.score && new Float32Array(bytes(data.score));
  const thumbnails = new Map(
    data.thumbnailRows.map((row, i) => [row, `data:image/webp;base64,${data.thumbnails[i]}`]),
  );

  // `paths.to_text` wrote bytes that are not UTF-8 as \xNN and a backslash as two.
  const encoded = (text) =>
    text
      .split(/(\\\\|\\x[0-9a-f]{2})/)
      .map((part, i) => (i % 2 ? (part === "\\\\" ? "%5C" : `%${part.slice(2)}`) : encodeURIComponent(part)))
      .join("");
  const path = (row) => (data.folders[folders[row]] ? `${data.folders[folders[row]]}/` : "") + data.names[row];
  const uri = (row) => `${data.sources[codes.source[row]].uri}/${path(row).split("/").map(encoded).join("/")}`;

  function showCard(row, event) {
    const [image, caption] = [card.querySelector("img"), card.querySelector("figcaption")];
    const [name, folder, facts] = caption.children;
    name.textContent = data.names[row];
    folder.textContent = data.folders[folders[row]];
    facts.textContent = [
      data.sources[codes.source[row]].name,
      data.clusters[codes.cluster[row]].name,
      ...Object.keys(data.facts).map((kind) => groups[kind][codes[kind][row]].name).filter((name) => name !== "unknown"),
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

  latentMap(
    {
      axes: data.axes,
      coordinates: data.coordinates.slice(0, data.three ? 3 : 2).map((text) => new Float32Array(bytes(text))),
      codes,
      groups,
      scores,
      three: data.three,
    },
    {
      map,
      overlay: document.getElementById("overlay"),
      legend: document.getElementById("legend"),
      controls: document.getElementById("controls"),
    },
    thumbnails,
    {
      hover: showCard,
      leave: () => (card.hidden = true),
      click: (row) => window.open(uri(row), "_blank", "noopener"),
    },
  );
})();
