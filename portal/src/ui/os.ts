import type { Device } from '../api/types'

/** The operating system in a few words. */
export function osOf(device: Device): string {
  return device.osName || [device.osDistribution || device.osPlatform, device.osVersion].join(' ').trim()
}
