// Puts the summaries that agents write into the reader's language. An agent
// writes English; a sentence that no pattern knows is shown as it came.
import { useCallback } from 'react'
import { useTranslation } from 'react-i18next'
import { useFormat, useName } from './names'

export function useSummary(): (summary: string) => string {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  return useCallback((summary) => {
    const patterns: [RegExp, (m: string[]) => string][] = [
      [/^(\d+) files with secrets of (\d+) kinds \((.+)\) were opened within (\S+) by (.+) and (\d+) further processes of its session\. Nothing was blocked\.$/, (m) => t('summary.enumeration', {
        files: m[1], kinds: m[2], list: format.list(m[3]!.split(', ').map((k) => name('sensitivity', k.replaceAll(' ', '_')))), time: m[4], process: m[5], others: m[6],
      })],
      [/^(.+) was executed, a file that listings do not show\.$/, (m) => t('summary.hidden', { file: m[1] })],
      [/^(.+) was started with the command line of a miner\.$/, (m) => t('summary.miner', { process: m[1] })],
      [/^(.+) cleared a shell's history\.$/, (m) => t('summary.history', { process: m[1] })],
      [/^(.+) cleared the shell history (.+)\.$/, (m) => t('summary.historyFile', { process: m[1], file: m[2] })],
      [/^(.+) switched the audit log off\.$/, (m) => t('summary.audit', { process: m[1] })],
      [/^What (.+) downloaded went straight into (.+)\.$/, (m) => t('summary.piped', { from: m[1], to: m[2] })],
      [/^(.+) was executed (\S+) after (.+) downloaded it\.$/, (m) => t('summary.downloaded', { file: m[1], time: m[2], from: m[3] })],
      [/^(.+) was started with a network connection as its input and output\.$/, (m) => t('summary.shellSocket', { process: m[1] })],
      [/^(.+) was told to take its input from the network\.$/, (m) => t('summary.shellInput', { process: m[1] })],
      [/^(.+) was told to hand a shell over to the network\.$/, (m) => t('summary.shellHanded', { process: m[1] })],
    ]
    for (const [pattern, say] of patterns) {
      const m = pattern.exec(summary)
      if (m) return say(m)
    }
    // What the antivirus says is what happened, and then what became of it.
    const tails: [RegExp, (m: string[]) => string][] = [
      [/ It was put into quarantine\.$/, () => t('summary.quarantined')],
      [/ Opening it is denied; it could not be put into quarantine: (.+)\.$/, (m) => t('summary.deniedOnly', { reason: m[1] })],
      [/ Opening it is denied\.$/, () => t('summary.denied')],
      [/ It could not be put into quarantine: (.+)\.$/, (m) => t('summary.notQuarantined', { reason: m[1] })],
      [/ The threat is on the list of allowed threats; nothing was done\.$/, () => t('summary.allowed')],
      [/ Nothing was done, because this filesystem is only watched or protection is passive\.$/, () => t('summary.watched')],
    ]
    for (const [pattern, say] of tails) {
      const m = pattern.exec(summary)
      if (!m) continue
      const head = summary.slice(0, m.index)
      const where = (text: string) => text.replace(/ \(in it: (.+)\)$/, (_, inside: string) => t('summary.inside', { inside }))
      const scan = /^A (\w+) scan found (\S+) in (.+)\.$/.exec(head)
      if (scan) return t('summary.found', { kind: name('scanKind', scan[1]), threat: scan[2], file: where(scan[3]!) }) + say(m)
      const touched = /^(.+?) touched (.+), which is (\S+)\.$/.exec(head)
      if (touched) return t('summary.touched', { who: touched[1] === 'A process' ? t('did.someone') : touched[1], file: where(touched[2]!), threat: touched[3] }) + say(m)
    }
    return summary
  }, [t, name, format])
}
