// Flows over links, of one group or of all, from reports of nodes.

/** Looks that count: a packet every other second is a flow, and no flicker. */
const LOOKS = 3;
/** Packets a second of a flow that cannot be silent for a look without having ended. */
const STEADY = 4;

export class Flows {
    constructor() {
        this.looks = [];
    }

    next(look) {
        this.look = look;
        const seen = new Map();
        for (const { node, group, edges } of look.flows) {
            const of = seen.get(group) ?? seen.set(group, new Map()).get(group);
            for (const { to, packets_s: packets, bytes_s: bytes } of edges) {
                const [from, into] = [look.nodes[node]?.id, look.nodes[to]?.id];
                of.set(`${from} ${into}`, { from, to: into, packets, bytes });
            }
        }
        this.looks = [...this.looks, seen].slice(-LOOKS);
        this.found = new Map();
        this.nodes = new Map(look.nodes.map((node) => [node.id, node]));
        // one group is found without a pass over all groups and nodes: there may be thousands
        this.peers = new Map(look.nodes.map((node) => [node.peer_id, node]));
        this.addresses = new Map(look.nodes.map((node) => [node.address, node]));
        this.own = new Map((look.groups ?? []).map((group) => [group.group, group]));
        this.local = new Map();
        for (const { node, group } of look.flows.filter((flow) => flow.local)) {
            (this.local.get(group) ?? this.local.set(group, new Set()).get(group)).add(look.nodes[node].id);
        }
        this.neighbours = new Map(look.nodes.map((node) => [node.id, []]));
        for (const [a, b] of look.links) {
            const ends = [look.nodes[a], look.nodes[b]];
            ends.forEach((end, i) => this.neighbours.get(end.id).push(ends[1 - i]));
        }
    }

    /** Of each link in each direction, packets and bytes a second. Both are 0 where a neighbour wants the group, and none goes. */
    edges(group) {
        const known = this.found.get(group);
        return known ?? this.found.set(group, this.find(group)).get(group);
    }

    find(group) {
        const found = new Map();
        for (const [at, look] of this.looks.entries()) {
            for (const edge of look.get(group)?.values() ?? []) {
                const key = `${edge.from} ${edge.to}`;
                const sum = found.get(key) ?? found.set(key, { ...edge, packets: 0, bytes: 0, since: at }).get(key);
                sum.packets += edge.packets;
                sum.bytes += edge.bytes;
                sum.last = at;
            }
        }
        const now = this.looks.length;
        const edges = [...found.values()].map(({ from, to, packets, bytes, since, last }) => {
            const n = now - since;
            return { from, to, packets: packets / n, bytes: bytes / n, isOver: last < now - 1 && packets / (last + 1 - since) > STEADY };
        });
        const flowing = edges.filter(({ from, to, isOver }) => !isOver && this.nodes.has(from) && this.isOnTree(to, group));
        const own = this.look.nodes[0].id;
        const wanted = this.own.get(group)?.links ?? [];
        const served = new Set(flowing.filter((edge) => edge.from === own).map((edge) => edge.to));
        const silent = wanted.map((peer) => this.peers.get(peer)?.id).filter((id) => this.isOnTree(id, group) && !served.has(id));
        return [...flowing, ...silent.map((id) => ({ from: own, to: id, packets: 0, bytes: 0 }))];
    }

    /** Whether packets to a node belong to the group's tree. A tab forwards nothing: groups that it has not joined are not for it. */
    isOnTree(id, group) {
        const node = this.nodes.get(id);
        return node !== undefined && (this.listeners(group).has(id) || !(node.stub && node.reports));
    }

    /** Nodes that packets of the group, or of any, come to over one link and leave over another; tabs pass nothing on. */
    carriers(group) {
        const found = (of) => {
            const edges = this.edges(of).filter((edge) => edge.packets > 0);
            const into = new Map();
            edges.forEach(({ from, to }) => (into.get(to) ?? into.set(to, new Set()).get(to)).add(from));
            return edges.filter(({ from, to }) => !this.nodes.get(from).stub && [...(into.get(from) ?? [])].some((id) => id !== to)).map(({ from }) => from);
        };
        return new Set((group === null ? this.groups() : [group]).flatMap(found));
    }

    /** Marks of a map: of one group, or of all together. */
    marks(group) {
        const [listeners, senders] = group === null ? [new Set(), new Set()] : [this.listeners(group), this.senders(group)];
        return { listeners, senders, carriers: this.carriers(group), chosen: group !== null };
    }

    /** The same of all groups together. */
    allEdges() {
        const all = new Map();
        for (const edge of this.groups().flatMap((group) => this.edges(group))) {
            const sum = all.get(`${edge.from} ${edge.to}`) ?? { ...edge, packets: 0, bytes: 0 };
            all.set(`${edge.from} ${edge.to}`, { ...sum, packets: sum.packets + edge.packets, bytes: sum.bytes + edge.bytes });
        }
        return [...all.values()].filter((edge) => edge.packets > 0);
    }

    groups() {
        return [...new Set([...this.look.flows, ...(this.look.groups ?? [])].map(({ group }) => group))];
    }

    listeners(group) {
        return this.local.get(group) ?? new Set();
    }

    /** Nodes whose packets come from and go to no link, and the facts of this node itself. */
    senders(group) {
        const edges = this.edges(group).filter((edge) => edge.packets > 0);
        const into = new Set(edges.map((edge) => edge.to));
        // flows from a neighbour that does not report are unknown
        const isSource = (id) => !into.has(id) && this.neighbours.get(id).every((node) => node.reports);
        const sources = this.own.get(group)?.sources ?? [];
        const known = sources.map((address) => this.addresses.get(address)?.id).filter((id) => id !== undefined);
        return new Set([...known, ...edges.map((edge) => edge.from).filter(isSource)]);
    }
}
