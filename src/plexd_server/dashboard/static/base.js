// Where the server is: it may be below a path of another one.

const BASE = new URL("..", import.meta.url).pathname;

/** The address of `path` (such as "/mesh"), which begins at the server's own root. */
export function below(path) {
  return path.startsWith("/") ? BASE + path.slice(1) : path;
}
