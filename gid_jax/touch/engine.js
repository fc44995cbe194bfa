// The dynamics of a photo that answers to touch, usable without the page: a basis, what holds and moves it, a scene.
export * from "./modes.js";
export * from "./grabs.js";
export * from "./oscillators.js";
export * from "./scene.js";
