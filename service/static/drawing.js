// The drawing area: light ink on dark ground (as the digits data sets have it), or the reverse.

const SIZE = 280;

export class Drawing {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} onStroke called when a stroke ends
   */
  constructor(canvas, onStroke) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.width = 24;
    this.isDarkOnLight = false;
    this.strokes = [];
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => this.#end(onStroke));
    }
    this.paint();
  }

  get isEmpty() {
    return this.strokes.length === 0;
  }

  /** A brush as thick as the strokes in small training pictures: about a pixel of 8, two and a half of 28. */
  suit(inputSize) {
    this.width = Math.round((SIZE * Math.max(1.2, inputSize * 0.085)) / inputSize);
    return this.width;
  }

  clear() {
    this.strokes = [];
    this.paint();
  }

  /** Draws everything anew: ground, then each stroke through its points. */
  paint() {
    const [ground, ink] = this.isDarkOnLight ? ["#fff", "#000"] : ["#000", "#fff"];
    this.context.fillStyle = ground;
    this.context.fillRect(0, 0, SIZE, SIZE);
    Object.assign(this.context, { strokeStyle: ink, lineCap: "round", lineJoin: "round" });
    for (const { width, points } of this.strokes) {
      this.context.lineWidth = width;
      this.context.beginPath();
      this.context.moveTo(...points[0]);
      for (const point of points) this.context.lineTo(...point);
      this.context.stroke();
    }
  }

  /** @returns {Promise<File>} the drawing as a PNG file */
  async file() {
    const blob = await new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
    return new File([blob], "drawing.png", { type: "image/png" });
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = { width: this.width, points: [this.#point(event)] };
    this.strokes.push(this.stroke);
    this.paint();
  }

  #extend(event) {
    if (!this.stroke) return;
    const moves = event.getCoalescedEvents?.() ?? [event];
    this.stroke.points.push(...moves.map((move) => this.#point(move)));
    this.paint();
  }

  #end(onStroke) {
    if (!this.stroke) return;
    this.stroke = null;
    onStroke();
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
  }
}
