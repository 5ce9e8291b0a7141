// --- embedded views: see "Put a view into a chapter" in CONTRIBUTING.md

/** Fill `<div class="lossviz-play" data-play="regime=…" …>`: an address as in the playground's, and what to show. */
function mountView(root, k) {
	const { play = "", regimes = "", size, names: given = "", show = "", edit = "ewm", title = "Try it" } = root.dataset;
	const shown = (part) => show.split(" ").includes(part), labels = given.split(",").filter(Boolean);
	let state, chosen = 0, batchSize = Number(size) || 1;
	try {
		state = read(START + play);
	} catch (error) {
		root.append(make("p", { class: "alert", role: "alert" }, `This view can not be read: ${error.message}.`));
		return;
	}
	const start = write(state), alertBox = make("p", { class: "alert", role: "alert" }), bar = makeNumber(), extra = make("div"), rules = make("div");
	const known = regimes.split(" ").filter((one) => REGIMES.includes(one));
	const board = makeBoard({ alertBox, editable: edit, changed: (text, from, cell) => update({ words: text, from, silent: cell === null || cell === undefined ? "" : board.silenceOf(cell) }, false) });
	const tiles = known.length ? makeTiles(`lvp-view${k}`, known, (regime) => change(`${state.regime} → ${regime}`, () => { state.regime = regime; }, false), "By the rules of") : null;
	// The theme reads what follows a # in any link as the name of a place, so the state joins the link when it is used.
	const aim = () => {
		link.setAttribute("href", `playground.html${write(state)}`);
		setTimeout(() => link.setAttribute("href", "playground.html"), 500);
	};
	const link = make("a", { href: "playground.html", onpointerdown: aim, onclick: aim }, "Open in the playground");
	const again = button("Start again", () => { state = read(start); chosen = 0; update({}); });
	const called = (o) => labels[o] || `output ${o + 1}`;

	function change(text, todo, anew = true) {
		const from = compare(state).found[state.regime].value;
		todo();
		update({ words: text, from }, anew);
	}

	function controls() {
		const output = state.outputs[chosen], lines = [];
		if (state.outputs.length > 1) lines.push(make("div", { class: "line", role: "group", "aria-label": "output to follow" }, state.outputs.map((_, o) => button(called(o), () => { chosen = o; update({}); }, { "data-key": `tab${o}`, "aria-pressed": String(o === chosen) }))));
		if (hasClass(output) && shown("class")) lines.push(select("over class", "fn", FUNCTIONS, output.fn, (one) => change(`${output.fn} → ${one} over class`, () => { output.fn = one; })));
		if (shown("weights")) lines.push(shapeControl("Sample weights", "w", output, alertBox, change));
			keepFocus(rules, () => rules.replaceChildren(...lines));
	}

	/** Loss weight times number, output by output, and what that is of the total. */
	function outputsTable(mine) {
		const rowsOf = state.outputs.map((output, o) => {
			const part = mine.parts[o].value, own = part / (output.lw ?? 1), field = lossWeightField(output, `loss weight of ${called(o)}`, alertBox, (text, todo) => change(`${called(o)}, ${text}`, todo, false));
			field.dataset.key = `lw${o}`;
			return [called(o), [output.lw === 0 ? "–" : plain(own)], [["×\u00a0", field], "weight"], [make("b", {}, plain(part))], meter((55 * part) / mine.value, `${plain((100 * part) / mine.value, 3)} %`)];
		});
		return table(["output", "printed", "loss weight", "in the loss", "share"], rowsOf);
	}

	/** Batch by batch: its loss, and what the progress bar shows after it. */
	function bars() {
		const n = batchOf(state.outputs[0]) || 1, list = batchLosses(state, state.regime, batchSize);
		const size = select("batch size", "size", each(n, (i) => [i + 1, i + 1]), batchSize, (s) => { batchSize = Number(s); update({}, false); });
		if (!Array.isArray(list)) return [size, quiet("These arrays cannot be cut into batches.")];
		const most = Math.max(...list.flatMap((one) => [one.value, one.soFar]).filter(Number.isFinite), 0) || 1, plainMean = total(list.map((one) => one.value)) / list.length, last = list.at(-1).soFar;
		const lines = list.map((one, b) => [`${b + 1}/${list.length}`, [one.end - one.start === 1 ? String(one.start) : `${one.start} to ${one.end - 1}`], meter((65 * one.value) / most, plain(one.value), "own"), meter((65 * one.soFar) / most, plain(one.soFar))]);
		return [size, table(["batch", "samples", "its loss", "the bar shows"], lines),
			make("p", { class: "sum" }, "The epoch ends with ", make("b", {}, plain(last)), differ(last, plainMean) ? `. The plain mean of the batches would be ${plain(plainMean)}.` : ".")];
	}

	function update(what, anew = true) {
		const { found, reference } = compare(state), mine = found[state.regime];
		if (tiles) tiles.show(state, found, reference, false);
		bar.show(state, mine, chosen, what);
		bar.equation.hidden = shown("outputs") || shown("batches");
		board.show(state.outputs[chosen], mine.parts[chosen], mine.value, { anew, bare: shown("batches") });
		if (anew) controls();
		if (mine.value !== undefined) keepFocus(extra, () => extra.replaceChildren(...(shown("outputs") ? [outputsTable(mine)] : []), ...(shown("batches") ? bars() : [])));
	}

	root.classList.add("lvp", "view");
	root.setAttribute("role", "group");
	root.setAttribute("aria-label", title);
	root.replaceChildren(make("p", { class: "name" }, make("b", {}, title)), make("div", { class: "top" }, bar.number, bar.effect, bar.equation), alertBox, ...(tiles ? [tiles.node] : []), rules, board.node, extra, line(again, link));
	update({});
}

window.lossvizPlayground = { reduce, compare, evaluate, epoch, batchLosses, shares, frames, read, write, pythonCode, PRESETS, LESSONS };

function mountAll() {
	if (document.querySelector('[data-lossviz="bar"]')) mountPage();
	document.querySelectorAll(".lossviz-play").forEach(mountView);
}
if (document.readyState === "loading") addEventListener("DOMContentLoaded", mountAll);
else mountAll();
