// Sizes of files.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** As lcsync writes sizes. */
export function size(bytes) {
    const power = bytes < 1000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1);
    return `${(bytes / 1000 ** power).toFixed(power && bytes / 1000 ** power < 10 ? 1 : 0)} ${UNITS[power]}`;
}
