import type { MachineQuery } from '../../api/machines'

/** Where the list of an environment's machines is, with what selects them. */
export function machinesAt(environment: string, query: MachineQuery & { machine?: string } = {}): string {
  return `/environments/${environment}?${new URLSearchParams({ tab: 'machines', ...query })}`
}
