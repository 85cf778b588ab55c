import { useEffect } from 'react'
import { product } from '../app/product'

/** Names the browser's tab after the page. */
export function useDocumentTitle(title: string) {
  useEffect(() => {
    document.title = title === '' ? product : `${title} - ${product}`
  }, [title])
}
