// --- the board: the arrays to edit at step 0, and the stage at all later steps; on the page and in embedded views

/** Which direction (0 across, 1 down) weights of one axis take beside their score array, or null. */
function besides(output, part) {
	const step = part && !part.refusal && part.steps.find((one) => one.name === "weights"), rank = scoreOf(output).score.shape.length;
	if (!step || rank > 2 || !rank) return null;
	const met = step.meets.filter((place, k) => step.factor.shape[k] > 1);
	return met.length === 1 && met[0] !== null && step.factor.data.length === output.w.data.length ? rank - 1 - met[0] : null;
}

/** `changed(words, from)` is called after every edit: what it was, and the number that it began with. */
function makeBoard({ changed, alertBox, editable = "ewm" }) {
	const bench = make("div", { class: "bench" }), box = make("div", { class: "box", hidden: true }), caption = make("p", { class: "caption", role: "status" });
	const slider = make("input", { type: "range", min: "0", step: "1", "aria-label": "step", oninput: () => go(Number(slider.value)) });
	const back = button("Back", () => go(f - 1), { class: "back" }), next = button("Next step", () => go(f + 1), { class: "next" });
	const control = make("div", { class: "line control", role: "group", "aria-label": "step by step" }, back, next, slider);
	const scale = make("p", { class: "q scale" });
	const node = make("div", { class: "board" }, bench, box, control, caption, scale);
	let f = 0, list = [], output, part, editors = [], asking = false, drawn = "", value, base;

	function go(to, moving = true) {
		const forward = to === f + 1;
		f = Math.max(0, Math.min(list.length - 1, to));
		bench.hidden = f > 0;
		box.hidden = f === 0;
		slider.max = String(list.length - 1);
		slider.value = String(f);
		back.disabled = f === 0;
		next.disabled = f === list.length - 1;
		if (f === 0) box.replaceChildren();
		else drawStage(box, list, f, names(output).length, names(output), moving && forward);
		const { text, label, values } = list[f], last = f > 0 && f === list.length - 1 && values.data.length === 1;
		scale.hidden = f === 0;
		const start = part.refusal ? `Refused: ${part.refusal}` : `${list.length - 1} steps lead from here to the number.`;
		const said = f === 0 ? [start] : [make("b", {}, `${f} of ${list.length - 1}: `), words(text, label), last ? ` → ${plain(values.data[0], 6)}` : ` → ${shapeText(values.shape)}`];
		slider.setAttribute("aria-valuetext", f === 0 ? "start" : `${f}: ${text}`);
		caption.className = part.refusal && f === 0 ? "caption bad" : "caption";
		caption.replaceChildren(...said.flat());
	}

	/** A grid of cells, one tab stop: arrows, Home, End and Page keys go through it. */
	function editor(a, axes, title, key, shape = a.shape, heads = []) {
		const cells = [], isMask = key === "m", [down, last] = [1, 1, ...shape].slice(-2), fixed = !editable.includes(key);
		let before = null;
		const paint = (extent, off) => cells.forEach((cell, i) => {
			const [fill, ink] = isMask ? ["#34506B", "#fff"] : key === "w" ? ["", ""] : colors(a.data[i], extent);
			cell.style.cssText = fill && `--cell:${fill};--text:${ink}`;
			cell.classList.toggle("out", Boolean(off && off(i)));
			if (isMask) { cell.setAttribute("aria-checked", String(a.data[i] === 1)); cell.textContent = a.data[i]; }
		});
		const called = (i) => where(coordinates(shape, i), axes).join(", ") || title;
		const set = (i, to) => {
			const from = before === null || isMask ? a.data[i] : before, kind = { e: "", w: "weight at ", m: "mask at " }[key];
			a.data[i] = to;
			if (isMask) changed(`${kind}${called(i)}: ${to ? "unmasked, it counts again" : "masked, it counts no more"}`, value);
			else changed(`${kind}${called(i)}: ${short(from)} → ${short(to)}`, base, key === "e" ? i : null);
		};
		const onfocus = (i) => {
			cells.forEach((cell, k) => { cell.tabIndex = k === i ? 0 : -1; });
			before = a.data[i];
			base = value;
			if (!isMask) cells[i].select();
			node.dispatchEvent(new CustomEvent("path", { bubbles: true, detail: key === "e" ? i : null }));
		};
		const enter = (i) => {
			const value = readNumber(cells[i].value);
			cells[i].toggleAttribute("aria-invalid", value === null);
			if (value !== null) set(i, value);
		};
		const leave = (i) => {
			const bad = cells[i].hasAttribute("aria-invalid");
			alertBox.textContent = bad ? `${word(cells[i].value)} is not a number; the cell keeps ${numberText(a.data[i])}.` : "";
			cells[i].removeAttribute("aria-invalid");
			cells[i].value = numberText(a.data[i]);
		};
		const onkeydown = (event) => {
			const i = cells.indexOf(event.target), row = i - (i % last), whole = event.ctrlKey || event.metaKey;
			const to = {
				ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - last, ArrowDown: i + last, PageUp: i - down * last, PageDown: i + down * last,
				Home: whole ? 0 : row, End: whole ? cells.length - 1 : row + last - 1, ...(isMask ? {} : { Enter: cells[i + last] ? i + last : i }),
			}[event.key];
			if (event.key === "Escape" && !isMask) { cells[i].value = numberText(before); enter(i); }
			if (to === undefined || event.altKey || event.shiftKey) return;
			event.preventDefault();
			if (to === i) leave(i);
			else if (cells[to]) cells[to].focus();
		};
		const cell = (i) => {
			const common = { tabIndex: i ? -1 : 0, "data-key": `${key}${i}`, "aria-label": called(i), onfocus: () => onfocus(i) };
			cells.push(isMask ? button("", () => set(i, 1 - a.data[i]), { ...common, role: "checkbox", disabled: fixed })
				: make("input", { ...common, inputmode: "decimal", autocomplete: "off", readOnly: fixed, value: numberText(a.data[i]), oninput: () => enter(i), onblur: () => leave(i) }));
			return make("div", { role: "gridcell" }, cells[i]);
		};
		const [rowName, colName] = heads, tick = (name, i) => (i ? String(i) : [chip(name), " 0"]);
		const grid = make("div", { class: shape.length === 4 ? "planes four" : "planes", style: `--n:${shape[1]}`, role: "grid", "aria-label": `${title} ${shapeText(a.shape)}`, onkeydown },
			planes(shape, axes, (start, height, across, text, plane) => make("div", { role: "rowgroup", "aria-label": text || title },
				text ? make("div", { role: "row" }, make("div", { role: "rowheader", class: "q plane" }, text, key === "e" ? planeWeight(plane, shape) : "")) : null,
				colName && !plane ? make("div", { role: "row", class: "heads" }, rowName ? make("div", { role: "columnheader", class: "tick" }, "\u00a0") : null, each(across, (c) => make("div", { role: "columnheader", class: "tick" }, tick(colName, c)))) : null,
				each(height, (r) => make("div", { role: "row" }, rowName ? make("div", { role: "rowheader", class: "tick" }, tick(rowName, r)) : null, each(across, (c) => cell(start + r * across + c)))))));
		editors.push({ paint, key });
		return grid;
	}

	/** In the caption of a plane: the weight that all of it meets. */
	function planeWeight(plane, shape) {
		const effect = asking || !part || part.refusal || !output.w ? null : effectOn(part, "weights"), size = count(shape.slice(-2));
		if (!effect || effect.length !== count(shape) || shape.length < 3) return "";
		const own = effect.slice(plane * size, (plane + 1) * size);
		return own.every((x) => x === own[0]) ? ` × ${short(own[0])}` : "";
	}

	function build() {
		editors = [];
		const axes = names(output), rank = axes.length, side = asking ? null : besides(output, part), { w, m } = output;
		const title = (text, a) => make("p", { class: "q title" }, text, ` ${shapeText(a.shape)}`);
		const heads = rank > 2 ? [] : [axes.at(-2), axes.at(-1)].map((name) => name || null);
		const e = editor(output.e, axes, hasClass(output) ? "element losses" : "score array", "e", output.e.shape, heads);
		const shape = scoreOf(output).score.shape, like = (a) => (same(a.shape, shape) ? scoreOf(output).axes : []);
		let own = null;
		if (w) {
			const along = side === null ? [] : [axes[rank - 1 - side]], down = side === 1 && w.shape.length === 1;
			const grid = editor(w, side === null ? like(w) : w.shape.map((n) => (n > 1 ? along[0] : "unit")), "sample weights", "w", down ? [...w.shape, 1] : w.shape);
			const met = side === null ? "" : [" along ", chip(along[0])];
			own = make("div", { class: `weights ${side === null ? "" : ["across", "down"][side]} ${heads[0] ? "indent" : ""}` }, make("p", { class: "q title" }, `× weights ${side === 1 ? "" : shapeText(w.shape)}`, met), grid);
		}
		const main = make("div", { class: "main" }, title(hasClass(output) ? "element losses" : "score array", output.e), e);
		const mask = m && make("div", { class: `mask ${heads[1] && same(m.shape, shape) ? "level" : ""}` }, title("mask", m), editor(m, like(m), "mask", "m"));
		const pair = own && side !== null ? make("div", { class: `pair ${["over", "left"][side]}` }, own, main) : main;
		keepFocus(bench, () => bench.replaceChildren(pair, ...(own && side === null ? [own] : []), ...(mask ? [mask] : [])));
		drawn = String(side);
	}

	return {
		node,
		/** Show `one`; with `anew` the editors are made again, as after a change of shape. */
		show(one, itsPart, number, { anew = true, hidden = false, bare = false } = {}) {
			[output, part, value, asking] = [one, itsPart, number, hidden];
			list = frames(output, part);
			if (anew || drawn !== String(asking ? null : besides(output, part))) build();
			const extent = scaleOf(list);
			for (const { paint, key } of editors) paint(extent, key === "e" && !asking ? (i) => silence(output, part, i) : null);
			control.hidden = caption.hidden = asking || bare;
			scale.textContent = output.e.data.length > 1 ? `One colour scale for every step: the lightest is 0, the darkest is ${short(Math.max(...extent.map(Math.abs)))}.` : "";
			go(anew ? 0 : f, false);
		},
		silenceOf: (i) => silence(output, part, i),
		goTo: go,
	};
}
