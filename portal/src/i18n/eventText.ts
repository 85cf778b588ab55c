// Says what an event was, in the reader's language, from its parts. The API
// has the same in English as summary, which stands in for actions that have
// no words here.
import { useCallback } from 'react'
import { useTranslation } from 'react-i18next'
import type { DeviceEvent, NetworkInfo, ProcessInfo } from '../api/types'
import { useName } from './names'

const longest = 240

function commandOf(process: ProcessInfo | undefined): string {
  const line = (process?.args ?? []).join(' ') || process?.path || process?.name || ''
  return line.length > longest ? `${line.slice(0, longest)}…` : line
}

function socket(ip: string | undefined, port: number | undefined): string {
  if (!ip) return ''
  const host = ip.includes(':') ? `[${ip}]` : ip
  return port ? `${host}:${port}` : host
}

const remote = (n: NetworkInfo) => socket(n.remoteIp, n.remotePort)

export function useEventText(): (event: DeviceEvent) => string {
  const { t } = useTranslation()
  const name = useName()
  return useCallback((event) => {
    const who = event.initiator?.name || event.initiator?.path || t('did.someone')
    const subject = event.process?.name || event.process?.path || t('did.someone')
    const file = event.file?.path ?? ''
    const { network, threat } = event
    switch (event.action) {
      case 'ProcessCreated': return t('did.processCreated', { who, command: commandOf(event.process) })
      case 'ProcessTerminated': return t('did.processTerminated', { who: subject })
      case 'FileCreated': return t('did.fileCreated', { who, file })
      case 'FileModified': return t('did.fileModified', { who, file })
      case 'FileDeleted': return t('did.fileDeleted', { who, file })
      case 'FileRenamed': return t('did.fileRenamed', { who, file, from: String(event.file?.previousPath ?? '') })
      case 'SensitiveFileRead': return !event.file?.sensitive ? event.summary : t('did.sensitiveRead', { who, file, kind: name('sensitivity', String(event.file?.sensitive ?? '')) })
      case 'ConnectionSuccess': return network ? t('did.connected', { who, address: remote(network), protocol: network.protocol ?? '' }) : event.summary
      case 'ConnectionFailed': return network ? t('did.notConnected', { who, address: remote(network), protocol: network.protocol ?? '' }) : event.summary
      case 'InboundConnectionAccepted': return network ? t('did.accepted', { who, address: remote(network), protocol: network.protocol ?? '' }) : event.summary
      case 'ListeningConnectionCreated': return network ? t('did.listens', { who, address: socket(network.localIp, network.localPort), protocol: network.protocol ?? '' }) : event.summary
      case 'AntivirusDetection':
      case 'AntivirusRemediation': return threat && file !== '' ? t('did.threat', { threat: String(threat.name ?? ''), file, outcome: name('threatState', String(threat.action ?? '')) }) : event.summary
      default: return event.summary
    }
  }, [t, name])
}
