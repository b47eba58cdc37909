// Pictures of a lecture in this tab. Others made them: the module has looked at their bytes, and gives those that are whole and are a
// picture. Each becomes a URL of this page, for an `img`, which runs nothing.

const WANTED = "lecture pictures";

/** Whether a session's pictures are joined where nothing was chosen: not where the reader dropped them once, or wants to save data. */
export function wantsPictures() {
    return !navigator.connection?.saveData && localStorage.getItem(WANTED) !== "no";
}

/** The reader chose them, or dropped them: so with the next session. */
export function wantPictures(isWanted) {
    localStorage.setItem(WANTED, isWanted ? "yes" : "no");
}

export class Pictures {
    urls = new Map();

    /** `file`: gives the blob of an id, or null. */
    constructor(file) {
        this.file = file;
    }

    /** Of a slide: the result of `elements` for each of its pictures. */
    of({ pictures }) {
        return (at) => {
            const known = pictures[at];
            const url = known && this.url(known.id);
            return url ? { ...known, url } : null;
        };
    }

    url(id) {
        if (!this.urls.has(id)) {
            const file = this.file(id);
            if (!file) {
                return null;
            }
            this.urls.set(id, URL.createObjectURL(file));
        }
        return this.urls.get(id);
    }

    /** Frees their memory. */
    forget() {
        this.urls.forEach((url) => URL.revokeObjectURL(url));
        this.urls.clear();
    }
}
