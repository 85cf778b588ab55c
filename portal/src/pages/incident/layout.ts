// Places the nodes of an incident's graph: causes first, effects after them. What is alike and belongs to the same thing becomes one node.
import { graphlib, layout } from '@dagrejs/dagre'
import type { Graph, GraphEdge, GraphNode } from '../../api/incidents'

export interface Placed extends GraphNode {
  x: number
  y: number
  /** The nodes that this one stands for. */
  members?: GraphNode[]
}

export interface Joined extends GraphEdge {
  id: string
}

export const nodeWidth = 190
export const nodeHeight = 52

/** So many alike are still shown one by one. */
const few = 4

/** Joins what is alike: leaves of one kind that hang on the same node by the same relation. */
export function grouped(graph: Graph, open: ReadonlySet<string>): { nodes: (GraphNode & { members?: GraphNode[] })[]; edges: GraphEdge[] } {
  const nodes = graph.nodes ?? []
  const known = new Set(nodes.map((n) => n.id))
  const edges = (graph.edges ?? []).filter((e) => known.has(e.from) && known.has(e.to) && e.from !== e.to)
  const touching = new Map<string, GraphEdge[]>()
  for (const edge of edges) {
    for (const id of [edge.from, edge.to]) touching.set(id, [...(touching.get(id) ?? []), edge])
  }
  const groups = new Map<string, GraphNode[]>()
  for (const node of nodes) {
    const own = touching.get(node.id) ?? []
    const [only] = own
    if (!only || own.length !== 1 || !['file', 'address', 'process', 'user'].includes(node.kind)) continue
    const other = only.from === node.id ? only.to : only.from
    const key = `group:${node.kind}:${other}:${only.from === node.id ? 'to' : 'from'}:${only.label ?? ''}`
    groups.set(key, [...(groups.get(key) ?? []), node])
  }
  const into = new Map<string, string>()
  const made: (GraphNode & { members?: GraphNode[] })[] = []
  for (const [key, members] of groups) {
    if (members.length <= few || open.has(key)) continue
    made.push({ id: key, kind: members[0]!.kind, label: '', members })
    for (const member of members) into.set(member.id, key)
  }
  const joined = new Map<string, GraphEdge>()
  for (const edge of edges) {
    const moved = { ...edge, from: into.get(edge.from) ?? edge.from, to: into.get(edge.to) ?? edge.to }
    const key = `${moved.from} ${moved.to} ${moved.label ?? ''}`
    // The first of several is when it began.
    if (!joined.has(key)) joined.set(key, moved)
  }
  return shortened({ nodes: [...nodes.filter((n) => !into.has(n.id)), ...made], edges: [...joined.values()] }, open)
}

/** So many ancestors in a row are still shown one by one. */
const short = 2

/** Joins processes that did nothing but start the next one: they lead to the story and are not part of it. */
function shortened(graph: { nodes: (GraphNode & { members?: GraphNode[] })[]; edges: GraphEdge[] }, open: ReadonlySet<string>) {
  const { nodes, edges } = graph
  const into = new Map<string, GraphEdge[]>()
  const from = new Map<string, GraphEdge[]>()
  for (const edge of edges) {
    into.set(edge.to, [...(into.get(edge.to) ?? []), edge])
    from.set(edge.from, [...(from.get(edge.from) ?? []), edge])
  }
  const byID = new Map(nodes.map((n) => [n.id, n]))
  const passing = (id: string) => byID.get(id)?.kind === 'process' && !byID.get(id)?.members && into.get(id)?.length === 1 && from.get(id)?.length === 1 && from.get(id)![0]!.label === 'started'
  const gone = new Map<string, string>()
  const made: (GraphNode & { members?: GraphNode[] })[] = []
  for (const node of nodes) {
    const before = into.get(node.id)?.[0]?.from
    if (!passing(node.id) || (before !== undefined && passing(before))) continue
    const members = [node]
    for (let next = from.get(node.id)![0]!.to; passing(next) && members.length < nodes.length; next = from.get(next)![0]!.to) members.push(byID.get(next)!)
    const id = `chain:${node.id}`
    if (members.length <= short || open.has(id)) continue
    made.push({ id, kind: 'process', label: '', members })
    for (const member of members) gone.set(member.id, id)
  }
  if (made.length === 0) return graph
  return {
    nodes: [...nodes.filter((n) => !gone.has(n.id)), ...made],
    edges: edges.map((e) => ({ ...e, from: gone.get(e.from) ?? e.from, to: gone.get(e.to) ?? e.to })).filter((e) => e.from !== e.to),
  }
}

/** The way that a graph reads: to the right, or downwards. */
export type Direction = 'LR' | 'TB'

/** Lays the graph out so that it is seen as large as the frame allows. */
export function place(graph: Graph, open: ReadonlySet<string>, frame: { width: number; height: number }): { nodes: Placed[]; edges: Joined[]; direction: Direction } {
  const both = (['LR', 'TB'] as const).map((direction) => placeIn(graph, open, direction))
  const scale = (p: { width: number; height: number }) => Math.min(frame.width / p.width, frame.height / p.height, 1)
  return both[0]!.width === 0 || scale(both[0]!) >= scale(both[1]!) ? both[0]! : both[1]!
}

function placeIn(graph: Graph, open: ReadonlySet<string>, direction: Direction) {
  const { nodes, edges } = grouped(graph, open)
  const g = new graphlib.Graph({ multigraph: true })
  g.setGraph({ rankdir: direction, nodesep: 18, ranksep: direction === 'LR' ? 90 : 46, marginx: 10, marginy: 10 })
  g.setDefaultEdgeLabel(() => ({}))
  for (const node of nodes) g.setNode(node.id, { width: nodeWidth, height: nodeHeight })
  edges.forEach((edge, i) => g.setEdge(edge.from, edge.to, {}, String(i)))
  layout(g)
  const { width = 0, height = 0 } = g.graph()
  return {
    width, height, direction,
    nodes: nodes.map((node) => {
      const { x, y } = g.node(node.id) as { x: number; y: number }
      return { ...node, x: x - nodeWidth / 2, y: y - nodeHeight / 2 }
    }),
    edges: edges.map((edge, i) => ({ ...edge, id: String(i) })),
  }
}
